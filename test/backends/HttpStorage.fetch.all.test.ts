import { fetchClient } from "../support/httpClients.js"
import { overMemory } from "../support/httpContract.js"

overMemory(fetchClient)
