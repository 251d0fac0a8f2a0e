import { fetchClient } from "../support/httpClients.js"
import { suites } from "../support/httpContract.js"

suites(fetchClient)
