// SPDX-License-Identifier: Apache-2.0
// The segments that a process has mapped: all of its loaders share one mapping, and the pages that were entered for it.
// Thread-safe.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "shared/segment/segment.h"
#include "stoker/v1/batch.pb.h"

namespace stoker::client {

// A segment mapped read-only, which enters pages into this process' page table a range at a time: a reader that faults
// page by page is several times slower than one that does not.
class ClientSegment {
 public:
  explicit ClientSegment(segment::MappedSegment mapped);
  const uint8_t* data() const { return mapped_.data(); }
  uint64_t size_bytes() const { return mapped_.size_bytes(); }

  // Maps the pages of [offset, offset + size) that it has not mapped before, in blocks of 2 MiB. No error where the
  // kernel cannot: the reader faults then.
  void Populate(uint64_t offset, uint64_t size);

 private:
  segment::MappedSegment mapped_;
  absl::Mutex mu_;
  std::vector<bool> populated_ ABSL_GUARDED_BY(mu_);  // by block
};

class SegmentCache {
 public:
  // The one of this process. It goes with the last who has it, and the mappings that nobody else has with it.
  static std::shared_ptr<SegmentCache> OfProcess();

  // Errors are those of MappedSegment::MapReadOnly.
  absl::StatusOr<std::shared_ptr<ClientSegment>> Get(const v1::SegmentDescriptor& descriptor);

 private:
  // A segment whose name is gone belongs to a dead daemon or was replaced: holding it would only hold its memory.
  void DropVanished() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  std::map<std::string, std::shared_ptr<ClientSegment>> segments_ ABSL_GUARDED_BY(mu_);  // by path
};

}  // namespace stoker::client
