// SPDX-License-Identifier: Apache-2.0
// All segments and what is free in them. Owned and called by the daemon's event loop, but for Prefault.
//
//   STOKER_ASSIGN_OR_RETURN(Arena arena, Arena::Create(options));
//   if (std::optional<Extent> extent = arena.Allocate(layout.extent_bytes())) { ... arena.Free(*extent); }
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "server/arena/extent_allocator.h"
#include "shared/segment/segment.h"
#include "stoker/v1/batch.pb.h"

namespace stoker::arena {

// The contiguous bytes of one batch.
struct Extent {
  uint32_t segment = 0;  // index, for good: a replaced segment has another
  uint64_t offset = 0;   // in the segment
  uint64_t size = 0;     // a multiple of 4096
};

struct ArenaOptions {
  std::string directory = segment::kDefaultDirectory;  // empty: memory that only workers map, for inline transport
  std::string instance_id;
  uint64_t capacity_bytes = 0;
  uint64_t segment_bytes = 0;
};

class Arena {
 public:
  // Reserves all memory. ResourceExhausted or PermissionDenied as Segment::Create has them; then nothing is left
  // behind.
  static absl::StatusOr<std::unique_ptr<Arena>> Create(const ArenaOptions& options);

  // Room for `size` bytes at a multiple of `slot` from a segment's first extent on, or nothing when there is none now.
  // Both multiples of 4096.
  std::optional<Extent> Allocate(uint64_t size, uint64_t slot = 4096);
  void Free(const Extent& extent);
  // Whether an empty arena could hold `size` bytes.
  bool CanHold(uint64_t size) const { return size <= largest_extent_; }
  uint64_t largest_extent() const { return largest_extent_; }
  uint64_t RoomFor(uint64_t size) const;  // extents of `size` bytes that it could hold; `size` > 0

  uint8_t* data(const Extent& extent) const;
  void Describe(const Extent& extent, v1::BatchDescriptor* batch) const;

  // Segments whose name somebody removed take no new extents, are unmapped when their last one is freed, and are
  // replaced at once, memory allowing; what memory does not allow now is tried again at the next call. Returns the
  // indices of segments that are new, or the reason why there is none although one is wanted.
  absl::StatusOr<std::vector<uint32_t>> ReplaceUnlinked();
  // Indices of segments that went since the last call: workers may unmap them.
  std::vector<uint32_t> TakeRetired();

  // Touches the pages of all segments that were there at Create. Blocks for about a second a GiB; call it once, on any
  // thread, while the loop calls what it likes. Stops early once `stop` is set.
  absl::Status Prefault(const std::atomic<bool>& stop);

  // Whether the name of the extent's segment is gone, so that nobody can map it any more who has not yet.
  bool retired(const Extent& extent) const { return slots_[extent.segment]->retired; }

  struct SegmentInfo {
    uint32_t index;
    const segment::Segment* segment;  // valid until the next call of Free or ReplaceUnlinked
    uint64_t used_bytes;
    uint64_t prefaulted_bytes;
  };
  std::vector<SegmentInfo> segments() const;
  uint64_t capacity_bytes() const;  // what extents can take, headers apart
  uint64_t used_bytes() const;      // of segments that go too, so at times above the capacity
  bool mappable() const { return !options_.directory.empty(); }

 private:
  struct Slot {
    segment::Segment segment;
    ExtentAllocator allocator;
    std::atomic<uint64_t> prefaulted{0};
    bool retired = false;
  };

  explicit Arena(const ArenaOptions& options) : options_(options) {}
  absl::Status AddSegment(uint64_t size_bytes);

  const ArenaOptions options_;
  uint64_t next_generation_ = 1;
  uint64_t largest_extent_ = 0;
  std::vector<std::shared_ptr<Slot>> slots_;  // by index; null once retired and empty
  std::vector<std::weak_ptr<Slot>> created_;  // those of Create; never changed after it, for Prefault's thread
  std::vector<uint64_t> wanted_;              // sizes of removed segments that have no replacement yet
  std::vector<uint32_t> gone_;
};

}  // namespace stoker::arena
