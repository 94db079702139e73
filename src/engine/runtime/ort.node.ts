/** ONNX Runtime in Node as a device. Tensors live on the host; inputs are passed without a copy. */

import { InferenceSession, Tensor } from "onnxruntime-node";
import { messageOf, runtimeError, usageError } from "../../base/errors.ts";
import { type DType, type HostTensor, tensor } from "../../base/tensor.ts";
import { onnxModel, outputName } from "../onnx/model.ts";
import { bindInputs } from "../shape.ts";
import { simplify } from "../simplify.ts";
import { type Device, type DeviceName, type DeviceTensor, onHost } from "./device.ts";
import { referenceDevice } from "./reference.ts";

const ortTypes = { f32: "float32", f64: "float32", i32: "int32", bool: "bool" } as const;
const dtypes: Readonly<Record<string, DType>> = { float32: "f32", int32: "i32", bool: "bool" };

const toOrt = ({ dtype, shape, data }: HostTensor): Tensor =>
  new Tensor(ortTypes[dtype], (dtype === "f64" ? Float32Array.from(data) : data) as Float32Array, shape as number[]);

const fromOrt = (held: Tensor): HostTensor => tensor(dtypes[held.type] ?? "f32", held.dims, held.data as Float32Array);

/** ONNX Runtime on the CPU. `threads` 0 lets it take one per core. */
export const cpuDevice = (options: { readonly threads?: number } = {}): Device => ({
  name: "cpu",
  upload: onHost,
  compile: async (graph, { frozen = {} } = {}) => {
    const fed = Object.fromEntries(Object.entries(graph.inputs).filter(([name]) => !(name in frozen)));
    bindInputs("cpu", Object.fromEntries(Object.entries(graph.inputs).filter(([name]) => name in frozen)), frozen);
    const bytes = onnxModel(simplify(graph), { device: "cpu", frozen });
    const session = await InferenceSession.create(bytes, {
      executionProviders: ["cpu"],
      graphOptimizationLevel: "all",
      // Errors are thrown, with the same words.
      logSeverityLevel: 4,
      ...(options.threads ? { intraOpNumThreads: options.threads } : {}),
    }).catch((error: unknown) => {
      throw runtimeError(
        {
          where: "cpu",
          expected: "ONNX Runtime to accept the graph",
          got: messageOf(error),
          fix: "report it with the model's config.json",
        },
        error,
      );
    });
    return {
      run: async (inputs) => {
        bindInputs("cpu", fed, inputs);
        const feeds: Record<string, Tensor> = {};
        for (const name of Object.keys(fed)) {
          const held: HostTensor | DeviceTensor = inputs[name]!;
          feeds[name] = toOrt("read" in held ? await held.read() : held);
        }
        const results = await session.run(feeds).catch((error: unknown) => {
          throw runtimeError(
            {
              where: "cpu",
              expected: "ONNX Runtime to run the graph",
              got: messageOf(error),
              fix: "check the values of the inputs",
            },
            error,
          );
        });
        return Object.fromEntries(
          Object.keys(graph.outputs).map((name) => [name, onHost(fromOrt(results[outputName(name)] as Tensor))]),
        );
      },
      dispose: () => session.release(),
    };
  },
});

/** The device of that name. @throws TiltError (usage) when this build cannot open it */
export const openDevice = (name: DeviceName, options: { readonly threads?: number } = {}): Device => {
  if (name === "cpu") return cpuDevice(options);
  if (name === "reference") return referenceDevice;
  throw usageError({
    where: `device ${name}`,
    expected: "cpu or reference",
    got: name,
    fix: "GPU devices are not in this version yet; use device: cpu",
  });
};
