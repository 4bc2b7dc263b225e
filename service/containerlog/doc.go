// Package containerlog reads the output of containers straight from the files that dockerd's json-file and local log
// drivers write on this host: the same bytes that dockerd's API gives, many times faster. A container whose log cannot
// be read that way (another driver, no access to the files) is read through a fallback, with the same results.
//
// What it promises:
//
//   - Order: entries come in the order of the log, both streams together, across rotated and compressed files.
//   - Following: rotation is followed by device and inode, so the old file is read to its end before the new one;
//     copytruncate is seen; nothing is lost as long as the reader is less than a few files behind. If something was
//     lost all the same, [Query.Gap] is called. The follow ends with the container, as dockerd's does.
//   - Bounds: memory is one read buffer of at most 1 MiB and one batch; a slow consumer blocks its own read alone.
//   - Blocking: every call returns soon after its ctx ends.
//
// Records that cannot be decoded (a torn write after a power cut) are skipped and counted.
package containerlog
