import { expect, test } from "vitest";
import {
  forcedSequence,
  tableOfWeights,
  tabularModelOf,
  weightsOfTable,
  zeroGradients,
} from "../../tests/support/tabular-world.ts";
import { createWorld, gradLogProb, logProb, randomTable } from "../../tests/support/world.ts";
import { tensor } from "../base/tensor.ts";
import { referenceDevice } from "../engine/runtime/reference.ts";
import { likelihoodObjective } from "./likelihood.ts";
import { createTraining } from "./training.ts";

test("the loss is minus the log-probability of all tokens, times the scale, and the gradient is its gradient", async () => {
  const world = createWorld(3, 3);
  const table = randomTable(world, 1);
  const n = world.sequences.findIndex((ids) => ids.length === 3);
  const training = await createTraining(referenceDevice, tabularModelOf(world), likelihoodObjective);
  const { gradients, outputs } = await training.accumulate(
    { logits: referenceDevice.upload(weightsOfTable(world, table).logits) },
    { logits: referenceDevice.upload(zeroGradients(world).logits) },
    forcedSequence(world, n),
    { scale: tensor("f64", [], [1 / 6]) },
  );
  // Sums of three float64 terms of order one.
  expect(outputs["loss"]!.data[0]).toBeCloseTo(-logProb(world, table, world.sequences[n]!) / 6, 12);
  const found = tableOfWeights(world, await gradients["logits"]!.read());
  const wanted = gradLogProb(world, table, world.sequences[n]!).map((value) => -value / 6);
  expect(Math.max(...found.map((value, k) => Math.abs(value - wanted[k]!)))).toBeLessThan(1e-12);
});
