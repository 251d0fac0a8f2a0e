/**
 * The contract suite with the fetch client, over a weight server whose storage is a file system.
 */
import { fetchClient } from "../support/httpClients.js"
import { overFiles } from "../support/httpContract.js"

overFiles(fetchClient)
