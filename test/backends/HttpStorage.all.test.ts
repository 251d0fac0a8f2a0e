/**
 * The contract suite with the fetch client, and over a weight server whose storage is a file system.
 */
import { fetchClient, nodeClient } from "../support/httpClients.js"
import { overFiles, overMemory } from "../support/httpContract.js"

overMemory(fetchClient)
overFiles(nodeClient)
