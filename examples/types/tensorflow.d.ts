/**
 * The little of TensorFlow.js that the examples call, as version 4 declares it. The package @energetic-ai/core holds the
 * code of these modules and takes their types from them, but they are not installed with it.
 */
declare module "@tensorflow/tfjs-core" {
  /** Resolves when the backend that runs the models has started. */
  export function ready(): Promise<void>
}

declare module "@tensorflow/tfjs-converter" {
  interface WeightsManifestEntry {
    name: string
    shape: number[]
    dtype: "float32" | "int32" | "bool" | "string" | "complex64"
    group?: "model" | "optimizer"
    quantization?: { scale?: number; min?: number; dtype: "uint16" | "uint8" | "float16" }
  }

  interface TrainingConfig {
    optimizer_config: object
    loss: string | string[] | { [key: string]: string }
    metrics?: string[] | { [key: string]: string }
    weighted_metrics?: string[]
    sample_weight_mode?: string
    loss_weights?: number[] | { [key: string]: number }
  }

  /** What a model is made of, as `model.json` and the shards hold it. */
  interface ModelArtifacts {
    modelTopology?: object | ArrayBuffer
    trainingConfig?: TrainingConfig
    weightSpecs?: WeightsManifestEntry[]
    weightData?: ArrayBuffer | ArrayBuffer[]
    getWeightStream?: () => ReadableStream<ArrayBuffer>
    format?: string
    generatedBy?: string
    convertedBy?: string | null
    signature?: object
    userDefinedMetadata?: { [key: string]: object }
    modelInitializer?: object
    initializerSignature?: object
  }

  interface SaveResult {
    modelArtifactsInfo: {
      dateSaved: Date
      modelTopologyType: "JSON" | "GraphDef"
      modelTopologyBytes?: number
      weightSpecsBytes?: number
      weightDataBytes?: number
    }
    responses?: Response[]
    errors?: Array<object | string>
  }

  interface IOHandler {
    save?: (modelArtifact: ModelArtifacts) => Promise<SaveResult>
    load?: () => Promise<ModelArtifacts>
  }

  /** A model that can run. */
  export interface GraphModel {
    readonly modelVersion: string
    readonly weights: { readonly [name: string]: ReadonlyArray<unknown> }
    save(handler: IOHandler): Promise<SaveResult>
  }

  export function loadGraphModel(source: IOHandler): Promise<GraphModel>
}
