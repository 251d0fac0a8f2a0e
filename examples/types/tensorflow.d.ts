/**
 * The little of TensorFlow.js that the quickstart calls. The package @energetic-ai/core holds the code of these modules
 * and takes their types from them, but they are not installed with it.
 */
declare module "@tensorflow/tfjs-core" {
  /** Resolves when the backend that runs the models has started. */
  export function ready(): Promise<void>
}

declare module "@tensorflow/tfjs-converter" {
  /** A model that can run. */
  export interface GraphModel {
    readonly modelVersion: string
  }

  /** What a model is made of, as `model.json` and the shards hold it. */
  export interface ModelArtifacts {
    readonly modelTopology: unknown
    readonly weightSpecs: ReadonlyArray<unknown>
    readonly weightData: ArrayBuffer
  }

  export function loadGraphModel(source: { readonly load: () => Promise<ModelArtifacts> }): Promise<GraphModel>
}
