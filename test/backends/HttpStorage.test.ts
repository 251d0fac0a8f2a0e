import { nodeClient } from "../support/httpClients.js"
import { suites } from "../support/httpContract.js"

suites(nodeClient)
