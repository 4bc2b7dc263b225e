// Package imagetar makes and bounds the tar streams that images are built and imported from: what is under an allowed
// folder of a host ([Open]), a directory ([Directory]), a build context with its .dockerignore ([Context]), and streams
// of others, unpacked and cut off where they grow too large ([Unpack]). Nothing is held in memory but a window of a
// decompressor. No symlink is followed: links are kept as links, and what leads out of its folder is refused.
package imagetar
