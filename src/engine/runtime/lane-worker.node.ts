/** The far side of lane.node.ts: holds sessions and tensors by number, and does what it is asked in the order of asking. */

import { parentPort } from "node:worker_threads";
import { messageOf } from "../../base/errors.ts";
import { type HostTensor, zeros } from "../../base/tensor.ts";
import type { Answer, Held, Passed, Request } from "./lane.node.ts";
import { freeBuffer } from "./memory.node.ts";
import { openSession, type Session } from "./session.node.ts";

const port = parentPort!;
const sessions = new Map<number, Session>();
const tensors = new Map<number, HostTensor>();

const found = (given: Passed): HostTensor => {
  if (!("held" in given)) return given;
  const held = tensors.get(given.held);
  if (held === undefined) throw new Error(`lane: tensor ${given.held} was given back`);
  return held;
};

const buffers = (outputs: Readonly<Record<string, HostTensor | Held>>): ArrayBuffer[] =>
  Object.values(outputs).flatMap((output) => ("data" in output ? [output.data.buffer as ArrayBuffer] : []));

const work = async (
  request: Exclude<Request, { kind: "hold" | "zeros" | "drop" }>,
): Promise<Record<string, HostTensor | Held>> => {
  if (request.kind === "read") {
    const held = found({ held: request.held });
    if (!request.last) return { tensor: { ...held, data: held.data.slice() as HostTensor["data"] } };
    tensors.delete(request.held);
    return { tensor: held };
  }
  if (request.kind === "compile") {
    const outside = Object.fromEntries(Object.entries(request.outside).map(([name, held]) => [name, found({ held })]));
    sessions.set(request.program, await openSession(request.bytes, outside, request.spec));
    return {};
  }
  const session = sessions.get(request.program)!;
  if (request.kind === "clear") {
    session.clear();
    return {};
  }
  if (request.kind === "dispose") {
    sessions.delete(request.program);
    await session.dispose();
    return {};
  }
  const inputs = Object.fromEntries(Object.entries(request.inputs).map(([name, given]) => [name, found(given)]));
  const results = await session.run(inputs, request.batch, request.options);
  // What was written over is held under the output's number now.
  for (const [name, given] of Object.entries(request.inputs))
    if ("held" in given && results[name] === inputs[name]) tensors.delete(given.held);
  return Object.fromEntries(
    Object.entries(results).map(([name, result]) => {
      const held = request.keep[name];
      if (held === undefined) return [name, result];
      tensors.set(held, result);
      return [name, { held, dtype: result.dtype, shape: result.shape }];
    }),
  );
};

let last: Promise<void> = Promise.resolve();
port.on("message", (request: Request) => {
  last = last.then(async () => {
    if (request.kind === "hold") tensors.set(request.held, request.tensor);
    else if (request.kind === "zeros") tensors.set(request.held, zeros("f32", request.shape));
    else if (request.kind === "drop") {
      // A worker that took the place of one that died does not have it.
      const held = tensors.get(request.held);
      if (held !== undefined) freeBuffer(held.data);
      tensors.delete(request.held);
    } else {
      const answer: Answer = await work(request).then(
        (outputs) => ({ id: request.id, outputs }),
        (error: unknown) => ({ id: request.id, error: messageOf(error) }),
      );
      port.postMessage(answer, "outputs" in answer ? buffers(answer.outputs) : []);
    }
  });
});
