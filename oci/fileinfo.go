package oci

import "io/fs"

func isSymlink(info fs.FileInfo) bool { return info.Mode()&fs.ModeSymlink != 0 }

func isDevice(mode fs.FileMode) bool { return mode&fs.ModeDevice != 0 }
