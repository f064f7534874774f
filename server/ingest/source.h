// SPDX-License-Identifier: Apache-2.0
// From what the user names to the files that are read: paths are resolved, checked against the roots, directories
// expanded, formats recognised, options completed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

inline constexpr uint64_t kMaxSourceFiles = 1'000'000;

struct Source {
  std::string path;                           // absolute, links resolved; of ID_PROP the id_prop.csv
  v1::SourceFormat format = v1::FORMAT_AUTO;  // resolved: never AUTO
  std::string target_path;  // of the file with the targets, for .npy with `target_array`; resolved and checked too
  // Structure files, absolute: of ID_PROP the one of each line; of structure files of their own, all in the folder
  // `path`. Empty where `path` is the file.
  std::vector<std::string> files{};
};

// JARVIS, ID_PROP, EXTXYZ, MATBENCH, POSCAR and CIF.
bool IsCrystalFormat(v1::SourceFormat format);

// Bytes of a regular file; InvalidArgument for anything else.
absl::StatusOr<uint64_t> SourceSize(const std::string& path);

// The canonical path. NotFound when there is no such file; PermissionDenied, naming the path and how to allow it, when
// it is not below one of `roots` once symbolic links are resolved; InvalidArgument for a relative path or one that is
// not UTF-8.
absl::StatusOr<std::string> CheckRoots(const std::string& path, absl::Span<const std::string> roots);

// `option` unless it is AUTO, else by extension, else by the first bytes. InvalidArgument, with the remedy, when
// neither tells or the file is empty.
absl::StatusOr<v1::SourceFormat> ResolveFormat(const std::string& path, v1::SourceFormat option);

// Files in the order named; a directory gives its files with an extension of the format, by name, without its
// subdirectories and hidden files. InvalidArgument when a directory has none.
absl::StatusOr<std::vector<Source>> ResolveSources(absl::Span<const std::string> paths,
                                                   const v1::IngestOptions& options,
                                                   absl::Span<const std::string> roots);

// Defaults written out, so that equal meanings are equal bytes; numbers checked. InvalidArgument names the field and
// the option of the command line.
absl::StatusOr<v1::IngestOptions> CompleteOptions(const v1::IngestOptions& options);

}  // namespace stoker::ingest
