/** What an op's lowering rule may ask for while a graph is written as ONNX. */

import type { DType, HostTensor } from "../../base/tensor.ts";
import type { Value } from "../graph.ts";
import type { Axis, Shape } from "../shape.ts";
import type { DeviceName } from "../runtime/device.ts";

export type Attribute = number | readonly number[] | string | { readonly float: number };

export interface NodeOptions {
  /** Operator set other than ONNX's own. */
  readonly domain?: "com.microsoft";
  /** How many outputs the operator has; the name of the first is returned. */
  readonly outputs?: number;
}

export interface Emitter {
  /** Where the graph will run: kernels differ. */
  readonly device: DeviceName;
  /** ONNX's number for a dtype. */
  type(dtype: DType): number;
  readonly int64Type: number;
  /** Adds a node and returns the name of its first output. */
  node(operator: string, inputs: readonly string[], attributes?: Readonly<Record<string, Attribute>>, options?: NodeOptions): string;
  /** Adds a constant tensor. Float64 is stored as float32. */
  initializer(tensor: HostTensor): string;
  /** Adds a constant list of 64-bit integers. */
  int64(values: readonly number[]): string;
  /** The size of an axis as a list of one 64-bit integer, measured from an input where it is symbolic. */
  axis(axis: Axis): string;
  /** A shape as a list of 64-bit integers. */
  shape(shape: Shape): string;
  /** Lowers what `build` makes of the inputs. */
  inline(inputs: readonly string[], build: (...inputs: Value[]) => Value): string;
}
