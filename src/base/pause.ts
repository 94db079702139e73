/** Long work on the thread that answers the terminal, cut into turns. */

/** Milliseconds that work may go on without letting others have their turn: far below what a person notices. */
const turn = 20;

/** Lets others have their turn. */
export const giveWay = (): Promise<void> => new Promise((resolve) => setTimeout(resolve));

/** What long work awaits between its parts: nothing, unless a turn has passed since the last pause. */
export const createPauses = (): (() => Promise<void>) => {
  let since = performance.now();
  return async () => {
    if (performance.now() - since < turn) return;
    await giveWay();
    since = performance.now();
  };
};
