/**
 * A certificate for servers of the tests' own on loopback, which nobody trusts.
 */
import { Effect } from "effect"

export const certificate = {
  key: `-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgUYaLGT1Ey7oMqx4Z
FkVXRkKpjedrWhlnFBY4p/l4ApChRANCAATwCD4yIfVFPogn8dfVPA5rD/j/vOOB
0pBAcC3VemmiXIoIzw3rurv2Nlkmv/AGAn8XKyn9GTPGd+hicBgybAh3
-----END PRIVATE KEY-----`,
  cert: `-----BEGIN CERTIFICATE-----
MIIBmjCCAUGgAwIBAgIUD+sZ2wQbZyksw0rOk1gLE23EtcYwCgYIKoZIzj0EAwIw
FDESMBAGA1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyNTE5MTgxOVoYDzIxMjYxMTAx
MTkxODE5WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjO
PQMBBwNCAATwCD4yIfVFPogn8dfVPA5rD/j/vOOB0pBAcC3VemmiXIoIzw3rurv2
Nlkmv/AGAn8XKyn9GTPGd+hicBgybAh3o28wbTAdBgNVHQ4EFgQUoQ7CLZ8EJbnK
JCuoMdjXS5EqIFYwHwYDVR0jBBgwFoAUoQ7CLZ8EJbnKJCuoMdjXS5EqIFYwDwYD
VR0TAQH/BAUwAwEB/zAaBgNVHREEEzARgglsb2NhbGhvc3SHBH8AAAEwCgYIKoZI
zj0EAwIDRwAwRAIgXhtDEwCR60r+DNcD6MKC2CqttB0ZvJ0/+62t4V2c7usCICdi
JIkPOeMNbHj9zEqePSLUI/yPfN3ZryCnvML1OQyU
-----END CERTIFICATE-----`
}

/** Certificates are not looked at until the scope ends. */
export const trustingAnybody = Effect.acquireRelease(
  Effect.sync(() => {
    const before = process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
    process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = "0"
    return before
  }),
  (before) =>
    Effect.sync(() => {
      if (before === undefined) delete process.env["NODE_TLS_REJECT_UNAUTHORIZED"]
      else process.env["NODE_TLS_REJECT_UNAUTHORIZED"] = before
    })
)
