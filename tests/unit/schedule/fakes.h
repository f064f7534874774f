// SPDX-License-Identifier: Apache-2.0
// What the scheduler needs from others, made small: a pool that checks what it is asked, and sources of plain numbers.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "server/schedule/types.h"

namespace stoker::schedule::testing {

inline constexpr uint64_t kPage = 4096;  // extents are multiples of it; sizes in these tests are counted in it

// Segments with free ranges between extents. Every wrong call is a test failure: an extent that overlaps another, is
// freed twice, or was never handed out.
class FakePool : public ExtentPool {
 public:
  enum class Fit { kBest, kFirst, kLast };  // which of the free ranges that are long enough is taken

  explicit FakePool(std::vector<uint64_t> segment_pages, Fit fit = Fit::kBest);

  std::optional<ExtentRef> Allocate(uint64_t size, uint64_t slot) override;
  void Free(const ExtentRef& extent) override;
  uint64_t largest_extent() const override;
  uint64_t RoomFor(uint64_t size) const override;
  uint64_t capacity_bytes() const override;
  void Describe(const ExtentRef& extent, v1::BatchDescriptor* batch) const override;

  // The extent that a descriptor speaks of.
  static ExtentRef Extent(const v1::BatchDescriptor& batch);

  bool IsLive(const ExtentRef& extent) const;
  uint64_t used_bytes() const;
  size_t live() const;
  // Whether `size` bytes would fit into a slot if only the extents that `stays` names were there.
  bool WouldFit(uint64_t size, uint64_t slot, const std::function<bool(const ExtentRef&)>& stays) const;
  void AddSegment(uint64_t pages) { segments_.push_back({pages * kPage, {}}); }

  std::function<void(const ExtentRef&)> before_free = [](const ExtentRef&) {};

 private:
  struct Segment {
    uint64_t size;
    std::map<uint64_t, uint64_t> live;  // offset -> size
  };
  using Range = std::pair<uint64_t, uint64_t>;  // offset, size
  static std::vector<Range> Gaps(uint64_t size, const std::map<uint64_t, uint64_t>& live);
  static std::optional<uint64_t> OffsetIn(const Range& gap, uint64_t size, uint64_t slot, bool last);

  std::vector<Segment> segments_;
  const Fit fit_;
};

struct FakeStream {
  std::string key;                 // of the stream; its data set is the same, its store "store of " + key
  uint64_t steps = 3;              // of an epoch
  uint64_t pages = 1;              // of a full batch
  uint64_t samples = 4;            // of a full batch
  uint64_t last_pages = 0;         // of the last batch of an epoch; 0: as the others
  uint64_t last_samples = 0;       // with last_pages
  std::optional<Position> broken;  // has no layout
};

class FakeSource : public BatchSource {
 public:
  explicit FakeSource(FakeStream stream) : stream_(std::move(stream)) {}

  uint64_t Steps(uint64_t) const override { return stream_.steps; }
  uint64_t SamplesAt(const Position& position) const override;
  absl::StatusOr<tensor::Layout> LayoutAt(const Position& position) const override;
  uint64_t full_batch_bytes() const override { return stream_.pages * kPage; }
  std::string DescribeSample(const Position& position, uint64_t i) const override;  // "sample 0:2/3": epoch:step/i

  uint64_t BytesAt(const Position& position) const;

 private:
  bool IsShort(const Position& position) const { return stream_.last_pages != 0 && position.step + 1 == stream_.steps; }
  const FakeStream stream_;
};

StreamSpec MakeSpec(const FakeStream& stream);

// "2:5"
std::string ToString(const Position& position);

}  // namespace stoker::schedule::testing
