// Package eventstest is an in-process control server for tests, of Rancher's or of Drover's kind, and the bad networks
// between it and an agent: a proxy that black-holes, resets, drips and delays, and HTTP and SOCKS proxies.
//
// Everything it starts ends with the test that started it. Its methods are safe for concurrent use; those that wait
// take a context.
package eventstest
