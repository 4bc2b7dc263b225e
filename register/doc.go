// Package register is the first contact with a control server: it turns a registration URL into API credentials, and
// gives the host its identity.
//
// [Join] is the whole flow: host identity, server CA, env script, api.crt, registration, credentials on disk. It blocks,
// is bounded by its context and by [Config.RetryFor], starts no goroutine that outlives it, and is not meant to be called
// twice at once on one state directory. Everything is done in that order, and nothing that is secret leaves the machine
// before the server's certificate was verified.
//
// What it keeps, in the state directory (0700), each file 0600 and replaced whole:
//
//	.docker_uuid         the host's uuid
//	.physical_host_uuid  the uuid of the physical host
//	.machine             what the identity is bound to, so that a cloned disk is noticed
//	.registration_token  the registration key: the same key is the same agent for the server
//	credentials.json     API URL and keys, so that a start needs no registration
//	ca.pem               the server's CA, where it is pinned
//	api.crt              the public key that signs host access tokens
//
// The server's answers are data: the env script is parsed and never evaluated, bodies are bounded, redirects do not carry
// credentials elsewhere, and what an error quotes is cut and cleaned.
package register
