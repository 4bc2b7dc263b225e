// Package hostinfo collects what a host tells about itself: processors, load, memory, disks, system and kernel, cloud
// labels and the host's key. One file is one collector, which reads below an [fs.FS], so that the host may be mounted
// anywhere and tests bring fixtures.
//
// [Collector.Run] samples in the background; [Collector.Sample] returns the last sample and never blocks. A value that
// could not be read is left out, never 0. One collector's failure never hides another's values.
package hostinfo
