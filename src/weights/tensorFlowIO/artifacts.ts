/**
 * Models as TensorFlow.js passes them to an `IOHandler`, typed as in `tfjs-core/src/io/types.ts`.
 */
import type { StorageError } from "../../StorageError.js"

/**
 * A weight: its name, shape and type. The bytes of all weights are in the order of their specs.
 *
 * @since 0.1.0
 * @category models
 */
export interface WeightSpec {
  name: string
  shape: Array<number>
  dtype: "float32" | "int32" | "bool" | "string" | "complex64"
  /** `optimizer` if only training needs it. */
  group?: "model" | "optimizer"
  /** How the values are quantized. The bytes are then of this `dtype`. */
  quantization?: { dtype: "uint8" | "uint16" | "float16"; scale?: number; min?: number }
}

/**
 * How a model was trained.
 *
 * @since 0.1.0
 * @category models
 */
export interface TrainingConfig {
  optimizer_config: object
  loss: string | Array<string> | { [key: string]: string }
  metrics?: Array<string> | { [key: string]: string }
  weighted_metrics?: Array<string>
  sample_weight_mode?: string
  loss_weights?: Array<number> | { [key: string]: number }
}

/**
 * A graph model or a layers model.
 *
 * @since 0.1.0
 * @category models
 */
export interface ModelArtifacts {
  modelTopology?: object | ArrayBuffer
  trainingConfig?: TrainingConfig
  weightSpecs?: Array<WeightSpec>
  /** The bytes of all weights, in the order of `weightSpecs`, in one buffer or several. */
  weightData?: ArrayBuffer | Array<ArrayBuffer>
  /** The same bytes as a stream. Newer versions of TensorFlow.js load graph models from it. */
  getWeightStream?: () => ReadableStream<ArrayBuffer>
  format?: string
  generatedBy?: string
  convertedBy?: string | null
  signature?: object
  userDefinedMetadata?: { [key: string]: object }
  modelInitializer?: object
  initializerSignature?: object
}

/**
 * The result of a save. Sizes are in bytes.
 *
 * @since 0.1.0
 * @category models
 */
export interface SaveResult {
  modelArtifactsInfo: {
    dateSaved: Date
    modelTopologyType: "JSON"
    modelTopologyBytes: number
    weightSpecsBytes: number
    weightDataBytes: number
  }
  /** Why shards of the replaced model could not be removed. The new model is complete nevertheless. */
  errors?: Array<StorageError>
}
