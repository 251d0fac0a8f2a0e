import { nodeClient } from "../support/httpClients.js"
import { overFiles, overMemory } from "../support/httpContract.js"

overMemory(nodeClient)
overFiles(nodeClient)
