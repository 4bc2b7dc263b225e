package handlers

import (
	"bufio"
	"context"
	"os"
	"slices"
	"strings"

	"github.com/droverhq/drover/runtime"
)

// mapDNS sets the resolver. A container that searches Rancher's own domains alone also searches the host's.
func (h *handlers) mapDNS(_ context.Context, spec *runtime.ContainerSpec, in *instance) {
	f := &in.Data.Fields
	spec.DNS, spec.DNSOptions, spec.DNSSearch = f.DNS, f.DNSOpt, f.DNSSearch
	foreign := func(domain string) bool { return !strings.HasSuffix(domain, "rancher.internal") }
	if len(f.DNSSearch) == 0 || slices.ContainsFunc(f.DNSSearch, foreign) {
		return
	}
	host := searchDomains(h.opts.ResolvConf)
	lists := [][]string{f.DNSSearch, host}
	if in.label(labelDNSOrder) == "service_last" {
		slices.Reverse(lists)
	}
	var search []string
	for _, domain := range slices.Concat(lists...) {
		if !slices.Contains(search, domain) {
			search = append(search, domain)
		}
	}
	spec.DNSSearch = search
}

// mapOldDNS leaves the resolver out where very old daemons refuse it.
func (h *handlers) mapOldDNS(ctx context.Context, spec *runtime.ContainerSpec, kind string) {
	if len(spec.DNS) == 0 && len(spec.DNSSearch) == 0 {
		return
	}
	version := h.info(ctx).Version
	ten, eleven := strings.HasPrefix(version, "1.10."), strings.HasPrefix(version, "1.11.")
	if kind == "dockerHost" && (ten || eleven) || kind == "cni" && ten {
		spec.DNS, spec.DNSSearch = nil, nil
	}
}

// searchDomains returns the domains of the last search line of a resolver configuration; none if it cannot be read.
func searchDomains(name string) []string {
	f, err := os.Open(name)
	if err != nil {
		return nil
	}
	defer f.Close()
	var domains []string
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 1 && words[0] == "search" {
			domains = words[1:]
		}
	}
	return domains
}
