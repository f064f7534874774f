// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/schedule/fakes.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace stoker::schedule::testing {

FakePool::FakePool(std::vector<uint64_t> segment_pages, Fit fit) : fit_(fit) {
  for (const uint64_t pages : segment_pages) AddSegment(pages);
}

std::vector<FakePool::Range> FakePool::Gaps(uint64_t size, const std::map<uint64_t, uint64_t>& live) {
  std::vector<Range> gaps;
  uint64_t end = 0;
  for (const auto& [offset, length] : live) {
    if (offset > end) gaps.emplace_back(end, offset - end);
    end = offset + length;
  }
  if (size > end) gaps.emplace_back(end, size - end);
  return gaps;
}

// Of the first slot that is wholly inside, or the last.
std::optional<uint64_t> FakePool::OffsetIn(const Range& gap, uint64_t size, uint64_t slot, bool last) {
  std::optional<uint64_t> found;
  for (uint64_t offset = 0; offset + size <= gap.first + gap.second; offset += slot) {
    if (offset >= gap.first && (last || !found)) found = offset;
  }
  return found;
}

std::optional<ExtentRef> FakePool::Allocate(uint64_t size, uint64_t slot) {
  EXPECT_GT(size, 0u);
  EXPECT_EQ(size % kPage, 0u);
  std::optional<ExtentRef> found;
  uint64_t found_gap = 0;
  for (uint32_t s = 0; s < segments_.size(); ++s) {
    for (const Range& gap : Gaps(segments_[s].size, segments_[s].live)) {
      const std::optional<uint64_t> offset = OffsetIn(gap, size, slot, fit_ == Fit::kLast);
      if (!offset) continue;
      if (found && fit_ == Fit::kFirst) continue;
      if (found && fit_ == Fit::kBest && gap.second >= found_gap) continue;
      found_gap = gap.second;
      found = ExtentRef{s, *offset, size};
    }
  }
  if (found) segments_[found->segment].live[found->offset] = size;
  return found;
}

void FakePool::Free(const ExtentRef& extent) {
  ASSERT_TRUE(IsLive(extent)) << "extent " << extent.segment << "+" << extent.offset << " is not there to be freed";
  before_free(extent);
  segments_[extent.segment].live.erase(extent.offset);
}

uint64_t FakePool::largest_extent() const {
  uint64_t largest = 0;
  for (const Segment& segment : segments_) largest = std::max(largest, segment.size);
  return largest;
}

uint64_t FakePool::RoomFor(uint64_t size) const {
  uint64_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.size / size;
  return sum;
}

uint64_t FakePool::capacity_bytes() const {
  uint64_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.size;
  return sum;
}

void FakePool::Describe(const ExtentRef& extent, v1::BatchDescriptor* batch) const {
  EXPECT_TRUE(IsLive(extent));
  batch->mutable_segment()->set_generation(extent.segment);
  batch->set_extent_offset_bytes(extent.offset);
  batch->set_extent_size_bytes(extent.size);
}

ExtentRef FakePool::Extent(const v1::BatchDescriptor& batch) {
  return {static_cast<uint32_t>(batch.segment().generation()), batch.extent_offset_bytes(), batch.extent_size_bytes()};
}

bool FakePool::IsLive(const ExtentRef& extent) const {
  if (extent.segment >= segments_.size()) return false;
  const auto& live = segments_[extent.segment].live;
  const auto it = live.find(extent.offset);
  return it != live.end() && it->second == extent.size;
}

uint64_t FakePool::used_bytes() const {
  uint64_t sum = 0;
  for (const Segment& segment : segments_) {
    for (const auto& [offset, length] : segment.live) sum += length;
  }
  return sum;
}

size_t FakePool::live() const {
  size_t sum = 0;
  for (const Segment& segment : segments_) sum += segment.live.size();
  return sum;
}

bool FakePool::WouldFit(uint64_t size, uint64_t slot, const std::function<bool(const ExtentRef&)>& stays) const {
  for (uint32_t s = 0; s < segments_.size(); ++s) {
    std::map<uint64_t, uint64_t> left;
    for (const auto& [offset, length] : segments_[s].live) {
      if (stays({s, offset, length})) left[offset] = length;
    }
    for (const Range& gap : Gaps(segments_[s].size, left)) {
      if (OffsetIn(gap, size, slot, false)) return true;
    }
  }
  return false;
}

uint64_t FakeSource::SamplesAt(const Position& position) const {
  return IsShort(position) ? stream_.last_samples : stream_.samples;
}

uint64_t FakeSource::BytesAt(const Position& position) const {
  return (IsShort(position) ? stream_.last_pages : stream_.pages) * kPage;
}

absl::StatusOr<tensor::Layout> FakeSource::LayoutAt(const Position& position) const {
  if (stream_.broken == position) {
    return absl::DataLossError(
        absl::StrCat("data set ", stream_.key, ": batch ", ToString(position), " is unreadable"));
  }
  const auto bytes = static_cast<int64_t>(BytesAt(position) - tensor::kExtentHeaderBytes);
  return tensor::Layout::Create({{"x", v1::DTYPE_U8, {bytes}}});
}

std::string FakeSource::DescribeSample(const Position& position, uint64_t i) const {
  EXPECT_LT(i, SamplesAt(position)) << "there is no such sample";
  return absl::StrCat("sample ", ToString(position), "/", i);
}

StreamSpec MakeSpec(const FakeStream& stream) {
  StreamSpec spec;
  spec.key = stream.key;
  spec.dataset = stream.key;
  spec.store = absl::StrCat("store of ", stream.key);
  spec.source = std::make_shared<FakeSource>(stream);
  return spec;
}

std::string ToString(const Position& position) { return absl::StrCat(position.epoch, ":", position.step); }

}  // namespace stoker::schedule::testing
