/** Memory outside of the heap, given back at once: the collector of garbage, to whom it looks small, may take long. */

import { MessageChannel } from "node:worker_threads";

const nowhere = new MessageChannel().port1;
nowhere.close();

/** Gives the buffer's memory back; nothing may look at it any more. What is sent to a closed port is gone. */
export const freeBuffer = ({ buffer }: ArrayBufferView): void => nowhere.postMessage(undefined, [buffer as ArrayBuffer]);
