// SPDX-License-Identifier: Apache-2.0
// What identifies a source: its files as the system sees them, and the hash of what is in them.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "server/ingest/source.h"
#include "stoker/v1/store.pb.h"

namespace stoker::ingest {

// Size, time and inode of each file: the sources in order, then their files of targets, then sidecars and the table of
// atom features. Without sha256.
absl::StatusOr<std::vector<v1::SourceFile>> StatSources(absl::Span<const Source> sources,
                                                        const v1::IngestOptions& options);

// Fills in sha256, files side by side on `threads` threads. `progress` (from any of them, with the bytes read since its
// last call) returns false to stop: Cancelled. InvalidArgument when a file is not as long as it was.
absl::Status HashFiles(int threads, const std::function<bool(uint64_t bytes)>& progress,
                       std::vector<v1::SourceFile>* files);

// InvalidArgument, naming the file, when one is no longer as `files` says.
absl::Status CheckUnchanged(absl::Span<const v1::SourceFile> files);

// True when the record's data set is made of exactly these files, judged by size, time and inode. A file that was
// changed within two seconds before the record, or after it, may have changed again with the same time: false then.
bool RecordCovers(const v1::Dataset& record, const v1::IngestOptions& options, absl::Span<const v1::SourceFile> files);

// 32 hex digits over store version, options as far as they matter to the formats, and contents in their order.
// REQUIRES: options completed, `files` hashed and as StatSources gave them.
std::string StoreId(absl::Span<const Source> sources, absl::Span<const v1::SourceFile> files,
                    const v1::IngestOptions& options);

}  // namespace stoker::ingest
