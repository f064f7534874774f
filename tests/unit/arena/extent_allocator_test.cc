// SPDX-License-Identifier: Apache-2.0
#include "server/arena/extent_allocator.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <random>
#include <utility>
#include <vector>

namespace stoker::arena {
namespace {

constexpr uint64_t kPage = 4096;

TEST(ExtentAllocator, New_IsOneFreeRange) {
  const ExtentAllocator allocator(kPage, 11 * kPage);
  EXPECT_EQ(allocator.capacity(), 10 * kPage);
  EXPECT_EQ(allocator.largest_free(), 10 * kPage);
  EXPECT_EQ(allocator.used(), 0u);
}

TEST(ExtentAllocator, EmptyRange_HoldsNothing) {
  ExtentAllocator allocator(kPage, kPage);
  EXPECT_EQ(allocator.capacity(), 0u);
  EXPECT_EQ(allocator.Allocate(kPage), std::nullopt);
}

TEST(ExtentAllocator, AllOfIt_IsAllocatedOnce) {
  ExtentAllocator allocator(kPage, 11 * kPage);
  EXPECT_EQ(allocator.Allocate(11 * kPage), std::nullopt);
  EXPECT_EQ(allocator.Allocate(10 * kPage), kPage);
  EXPECT_EQ(allocator.largest_free(), 0u);
  EXPECT_EQ(allocator.Allocate(kPage), std::nullopt);
}

TEST(ExtentAllocator, FreedNeighbours_AreOneRangeAgainInAnyOrder) {
  for (const std::vector<int>& order :
       {std::vector<int>{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}) {
    ExtentAllocator allocator(kPage, 4 * kPage);
    std::vector<uint64_t> offsets;
    for (int i = 0; i < 3; ++i) offsets.push_back(*allocator.Allocate(kPage));
    for (const int i : order) allocator.Free(offsets[i], kPage);
    EXPECT_EQ(allocator.largest_free(), 3 * kPage);
    EXPECT_EQ(allocator.Allocate(3 * kPage), kPage);
  }
}

TEST(ExtentAllocator, RangesOfSeveralSizes_GivesTheSmallestThatFits) {
  ExtentAllocator allocator(0, 10 * kPage);
  const uint64_t large = *allocator.Allocate(3 * kPage);
  ASSERT_TRUE(allocator.Allocate(kPage));
  const uint64_t small = *allocator.Allocate(2 * kPage);
  ASSERT_TRUE(allocator.Allocate(4 * kPage));
  allocator.Free(large, 3 * kPage);
  allocator.Free(small, 2 * kPage);
  EXPECT_EQ(allocator.Allocate(2 * kPage), small);
  EXPECT_EQ(allocator.Allocate(2 * kPage), large);
}

TEST(ExtentAllocator, OneSizeOverAndOver_StaysOnTheSameExtents) {
  ExtentAllocator allocator(0, 100 * kPage);
  for (int round = 0; round < 50; ++round) {
    const uint64_t first = *allocator.Allocate(3 * kPage);
    const uint64_t second = *allocator.Allocate(3 * kPage);
    EXPECT_EQ(first, 0u);
    EXPECT_EQ(second, 3 * kPage);
    allocator.Free(first, 3 * kPage);
    allocator.Free(second, 3 * kPage);
  }
}

// One flag a page: slow and plainly right.
class Model {
 public:
  explicit Model(uint64_t pages) : taken_(pages, false) {}

  // The first page of a slot in the smallest run of free pages that holds `pages` from there on, the first among
  // equals.
  std::optional<uint64_t> BestFit(uint64_t pages, uint64_t slot) const {
    std::optional<uint64_t> best;
    uint64_t best_length = 0;
    for (const auto& [begin, length] : Runs()) {
      uint64_t page = begin;
      while (page % slot != 0) ++page;
      if (page + pages > begin + length || (best && length >= best_length)) continue;
      best = page;
      best_length = length;
    }
    return best;
  }
  uint64_t Longest() const {
    uint64_t longest = 0;
    for (const auto& run : Runs()) longest = std::max(longest, run.second);
    return longest;
  }
  bool Mark(uint64_t begin, uint64_t pages, bool taken) {  // false when one of them was so already
    for (uint64_t i = begin; i < begin + pages; ++i) {
      if (i >= taken_.size() || taken_[i] == taken) return false;
      taken_[i] = taken;
    }
    return true;
  }

 private:
  std::vector<std::pair<uint64_t, uint64_t>> Runs() const {
    std::vector<std::pair<uint64_t, uint64_t>> runs;
    for (uint64_t i = 0; i < taken_.size(); ++i) {
      if (taken_[i]) continue;
      if (i > 0 && !taken_[i - 1]) {
        ++runs.back().second;
      } else {
        runs.emplace_back(i, 1);
      }
    }
    return runs;
  }
  std::vector<bool> taken_;
};

TEST(ExtentAllocator, RandomUse_AgreesWithAModel) {
  std::mt19937_64 random(3);
  for (int round = 0; round < 60; ++round) {
    const uint64_t pages = 1 + random() % 64;
    const uint64_t first = random() % 3;
    ExtentAllocator allocator(first * kPage, (first + pages) * kPage);
    Model model(pages);
    std::vector<std::pair<uint64_t, uint64_t>> live;  // page, pages
    uint64_t used = 0;
    for (int step = 0; step < 400; ++step) {
      if (random() % 2 == 0 || live.empty()) {
        const uint64_t want = 1 + random() % 12;
        const uint64_t slot = random() % 2 == 0 ? 1 : want + random() % 3;
        const std::optional<uint64_t> offset = allocator.Allocate(want * kPage, slot * kPage);
        const std::optional<uint64_t> expected = model.BestFit(want, slot);
        ASSERT_EQ(offset.has_value(), expected.has_value());
        if (!offset) continue;
        ASSERT_EQ(*offset, (first + *expected) * kPage);
        ASSERT_TRUE(model.Mark(*expected, want, true)) << "overlaps";
        live.emplace_back(*expected, want);
        used += want;
      } else {
        const size_t i = random() % live.size();
        const auto [page, count] = live[i];
        live.erase(live.begin() + static_cast<ptrdiff_t>(i));
        allocator.Free((first + page) * kPage, count * kPage);
        ASSERT_TRUE(model.Mark(page, count, false));
        used -= count;
      }
      ASSERT_EQ(allocator.used(), used * kPage);
      ASSERT_EQ(allocator.largest_free(), model.Longest() * kPage);
    }
    for (const auto& [page, count] : live) allocator.Free((first + page) * kPage, count * kPage);
    EXPECT_EQ(allocator.used(), 0u);
    EXPECT_EQ(allocator.largest_free(), allocator.capacity());
  }
}

}  // namespace
}  // namespace stoker::arena
