// SPDX-License-Identifier: Apache-2.0
#include "server/arena/arena.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/support/child_process.h"
#include "tests/support/instance_id.h"
#include "tests/support/shm_namespace.h"
#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::arena {
namespace {

using ::stoker::testing::ChildProcess;
using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::RandomInstanceId;
using ::stoker::testing::RunInShmNamespace;
using ::stoker::testing::ShmNamespaceSkipReason;
using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr uint64_t kPage = 4096;
constexpr uint64_t kSegment = 16 * kPage;
constexpr uint64_t kRoom = kSegment - kPage;  // for extents, in a segment

absl::StatusOr<std::unique_ptr<Arena>> Create(const std::string& directory, uint64_t capacity,
                                              uint64_t segment = kSegment) {
  return Arena::Create({.directory = directory,
                        .instance_id = RandomInstanceId(),
                        .capacity_bytes = capacity,
                        .segment_bytes = segment});
}

std::vector<uint64_t> SegmentSizes(const Arena& arena) {
  std::vector<uint64_t> sizes;
  for (const Arena::SegmentInfo& info : arena.segments()) sizes.push_back(info.segment->size_bytes());
  return sizes;
}

// As somebody does who cleans up by hand.
void Remove(const std::string& directory, const Arena& arena, uint32_t index) {
  for (const Arena::SegmentInfo& info : arena.segments()) {
    if (info.index != index) continue;
    ASSERT_TRUE(std::filesystem::remove(absl::StrCat(directory, "/", info.segment->name())));
  }
}

class ArenaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    absl::StatusOr<std::unique_ptr<Arena>> arena = Create(dir_.path(), 2 * kSegment);
    ASSERT_OK(arena);
    arena_ = *std::move(arena);
  }
  const TempDir dir_;
  std::unique_ptr<Arena> arena_;
};

TEST(ArenaCreate, CapacityNotAMultipleOfTheSegment_EndsWithASmallerOne) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const auto arena, Create(dir.path(), 2 * kSegment + 3 * kPage));
  EXPECT_THAT(SegmentSizes(*arena), ElementsAre(kSegment, kSegment, 3 * kPage));
  EXPECT_EQ(arena->capacity_bytes(), 2 * kRoom + 2 * kPage);
  EXPECT_EQ(arena->largest_extent(), kRoom);
  EXPECT_TRUE(arena->mappable());
}

TEST(ArenaCreate, RestTooSmallForASegment_IsLeftOut) {
  const TempDir dir;
  ASSERT_OK_AND_ASSIGN(const auto arena, Create(dir.path(), kSegment + kPage));
  EXPECT_THAT(SegmentSizes(*arena), ElementsAre(kSegment));
}

TEST(ArenaCreate, NoRoomForASegment_IsInvalidArgument) {
  EXPECT_THAT(Create("", 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no room")));
  EXPECT_THAT(Create("", kPage), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("no room")));
  EXPECT_THAT(Create("", kSegment, 0), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("size 0")));
}

TEST(ArenaCreate, NoSuchDirectory_IsNotFound) {
  const TempDir dir;
  EXPECT_THAT(Create(dir.File("none"), kSegment), StatusIs(absl::StatusCode::kNotFound, HasSubstr("none")));
}

TEST(ArenaCreate, SecondSegmentDoesNotFit_IsResourceExhaustedAndLeavesNothing) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const auto result = RunInShmNamespace(kSegment + 2 * kPage, [](int) {
    EXPECT_THAT(Create("/dev/shm", 2 * kSegment),
                StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("free now")));
    EXPECT_TRUE(std::filesystem::is_empty("/dev/shm"));
  });
  EXPECT_EQ(result.exit_code, 0);
}

// Daemons that start at the same time sweep the directory in which the others just make their segments.
TEST(ArenaCreate, OthersSweepMeanwhile_Succeeds) {
  const TempDir dir;
  const auto sweep = [&](int) {
    while (true) ASSERT_OK(segment::SweepOrphans(dir.path()));
  };
  ChildProcess first(sweep);
  ChildProcess second(sweep);
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto arena, Create(dir.path(), 40 * 2 * kPage, 2 * kPage));
    ASSERT_THAT(arena->segments(), ::testing::SizeIs(40));
    for (const Arena::SegmentInfo& info : arena->segments()) ASSERT_TRUE(info.segment->linked());
  }
}

TEST(ArenaCreate, WithoutADirectory_IsNotMappableAndNeverUnlinked) {
  ASSERT_OK_AND_ASSIGN(const auto arena, Create("", 2 * kSegment));
  EXPECT_FALSE(arena->mappable());
  EXPECT_THAT(arena->ReplaceUnlinked(), IsOkAndHolds(IsEmpty()));
  const std::optional<Extent> extent = arena->Allocate(kRoom);
  ASSERT_TRUE(extent);
  std::memset(arena->data(*extent), 1, extent->size);
}

TEST_F(ArenaTest, Destroyed_LeavesNoFile) {
  EXPECT_FALSE(std::filesystem::is_empty(dir_.path()));
  arena_.reset();
  EXPECT_TRUE(std::filesystem::is_empty(dir_.path()));
}

TEST_F(ArenaTest, ExtentsBeyondOneSegment_GoToTheNext) {
  const std::optional<Extent> first = arena_->Allocate(kRoom);
  const std::optional<Extent> second = arena_->Allocate(kRoom);
  ASSERT_TRUE(first && second);
  EXPECT_EQ(first->segment, 0u);
  EXPECT_EQ(second->segment, 1u);
  EXPECT_EQ(first->offset, kPage);
  EXPECT_EQ(arena_->used_bytes(), 2 * kRoom);
  EXPECT_FALSE(arena_->Allocate(kPage));
  arena_->Free(*first);
  EXPECT_EQ(arena_->used_bytes(), kRoom);
  EXPECT_TRUE(arena_->Allocate(kPage));
}

TEST_F(ArenaTest, MoreThanASegment_CannotBeHeld) {
  EXPECT_TRUE(arena_->CanHold(kRoom));
  EXPECT_FALSE(arena_->CanHold(kRoom + kPage));
  EXPECT_FALSE(arena_->Allocate(kRoom + kPage));
}

TEST_F(ArenaTest, Described_IsWhereAClientReadsIt) {
  ASSERT_TRUE(arena_->Allocate(kRoom));
  ASSERT_TRUE(arena_->Allocate(2 * kPage));
  const std::optional<Extent> extent = arena_->Allocate(kPage);
  ASSERT_TRUE(extent);
  std::memset(arena_->data(*extent), 42, extent->size);
  v1::BatchDescriptor batch;
  arena_->Describe(*extent, &batch);
  EXPECT_EQ(batch.extent_offset_bytes(), extent->offset);
  EXPECT_EQ(batch.extent_size_bytes(), kPage);
  ASSERT_OK_AND_ASSIGN(const auto mapped, segment::MappedSegment::MapReadOnly(batch.segment()));
  for (uint64_t i = 0; i < kPage; ++i) ASSERT_EQ(mapped.data()[batch.extent_offset_bytes() + i], 42);
}

TEST_F(ArenaTest, NothingRemoved_ReplacesNothing) {
  EXPECT_THAT(arena_->ReplaceUnlinked(), IsOkAndHolds(IsEmpty()));
  EXPECT_THAT(arena_->TakeRetired(), IsEmpty());
}

TEST_F(ArenaTest, EmptySegmentRemoved_IsReplacedAndGoesAtOnce) {
  Remove(dir_.path(), *arena_, 0);
  EXPECT_THAT(arena_->ReplaceUnlinked(), IsOkAndHolds(ElementsAre(2)));
  EXPECT_THAT(arena_->TakeRetired(), ElementsAre(0));
  EXPECT_THAT(arena_->TakeRetired(), IsEmpty());
  EXPECT_EQ(arena_->capacity_bytes(), 2 * kRoom);
  EXPECT_EQ(arena_->segments()[0].index, 1u);
  EXPECT_EQ(arena_->segments()[1].index, 2u);
  EXPECT_EQ(arena_->segments()[1].segment->generation(), 3u);
  EXPECT_THAT(arena_->ReplaceUnlinked(), IsOkAndHolds(IsEmpty()));
}

TEST_F(ArenaTest, SegmentInUseRemoved_KeepsItsExtentsAndTakesNoNewOnes) {
  const std::optional<Extent> old = arena_->Allocate(kPage);
  ASSERT_TRUE(old);
  std::memset(arena_->data(*old), 42, kPage);
  Remove(dir_.path(), *arena_, old->segment);
  EXPECT_THAT(arena_->ReplaceUnlinked(), IsOkAndHolds(ElementsAre(2)));
  EXPECT_THAT(arena_->TakeRetired(), IsEmpty());
  EXPECT_EQ(arena_->data(*old)[kPage - 1], 42);
  EXPECT_EQ(arena_->capacity_bytes(), 2 * kRoom);
  EXPECT_EQ(arena_->used_bytes(), kPage);
  for (int i = 0; i < 2; ++i) {
    const std::optional<Extent> extent = arena_->Allocate(kRoom);
    ASSERT_TRUE(extent);
    EXPECT_NE(extent->segment, old->segment);
  }
  EXPECT_FALSE(arena_->Allocate(kPage));
  arena_->Free(*old);
  EXPECT_THAT(arena_->TakeRetired(), ElementsAre(old->segment));
  EXPECT_FALSE(arena_->Allocate(kPage));
}

TEST_F(ArenaTest, RemovedSegmentWithTwoExtents_GoesWithTheLast) {
  const std::optional<Extent> first = arena_->Allocate(kPage);
  const std::optional<Extent> second = arena_->Allocate(kPage);
  ASSERT_TRUE(first && second);
  Remove(dir_.path(), *arena_, 0);
  ASSERT_OK(arena_->ReplaceUnlinked());
  arena_->Free(*first);
  EXPECT_THAT(arena_->TakeRetired(), IsEmpty());
  arena_->Free(*second);
  EXPECT_THAT(arena_->TakeRetired(), ElementsAre(0));
}

TEST_F(ArenaTest, AllRemovedManyTimes_KeepsItsCapacity) {
  for (int round = 0; round < 10; ++round) {
    for (const Arena::SegmentInfo& info : arena_->segments()) Remove(dir_.path(), *arena_, info.index);
    EXPECT_THAT(arena_->ReplaceUnlinked(), IsOkAndHolds(::testing::SizeIs(2)));
    EXPECT_EQ(arena_->TakeRetired().size(), 2u);
    EXPECT_EQ(arena_->capacity_bytes(), 2 * kRoom);
    EXPECT_TRUE(arena_->CanHold(kRoom));
  }
}

// The mount has room for three segments; two are removed while their extents keep them in memory.
TEST(ArenaReplace, RoomForOneOfTwo_SaysWhichIsNewAndTriesAgainForTheOther) {
  if (const std::string reason = ShmNamespaceSkipReason(); !reason.empty()) GTEST_SKIP() << reason;
  const auto result = RunInShmNamespace(3 * kSegment, [](int) {
    ASSERT_OK_AND_ASSIGN(const auto arena, Create("/dev/shm", 2 * kSegment));
    const std::optional<Extent> first = arena->Allocate(kRoom);
    const std::optional<Extent> second = arena->Allocate(kRoom);
    ASSERT_TRUE(first && second);
    Remove("/dev/shm", *arena, 0);
    Remove("/dev/shm", *arena, 1);
    EXPECT_THAT(arena->ReplaceUnlinked(), IsOkAndHolds(ElementsAre(2)));
    EXPECT_EQ(arena->capacity_bytes(), kRoom);
    EXPECT_THAT(arena->ReplaceUnlinked(), StatusIs(absl::StatusCode::kResourceExhausted, HasSubstr("free now")));
    arena->Free(*first);
    EXPECT_THAT(arena->ReplaceUnlinked(), IsOkAndHolds(ElementsAre(3)));
    EXPECT_EQ(arena->capacity_bytes(), 2 * kRoom);
    arena->Free(*second);
    EXPECT_THAT(arena->TakeRetired(), ElementsAre(0, 1));
  });
  EXPECT_EQ(result.exit_code, 0);
}

TEST_F(ArenaTest, Prefaulted_SaysSo) {
  const std::atomic<bool> stop{false};
  EXPECT_EQ(arena_->segments()[1].prefaulted_bytes, 0u);
  ASSERT_OK(arena_->Prefault(stop));
  EXPECT_EQ(arena_->segments()[0].prefaulted_bytes, kSegment);
  EXPECT_EQ(arena_->segments()[1].prefaulted_bytes, kSegment);
}

TEST_F(ArenaTest, PrefaultStopped_TouchesNothing) {
  const std::atomic<bool> stop{true};
  ASSERT_OK(arena_->Prefault(stop));
  EXPECT_EQ(arena_->segments()[0].prefaulted_bytes, 0u);
}

// For the thread sanitizer, and for the address sanitizer: segments go while another thread prefaults them.
TEST(ArenaPrefault, SegmentsRemovedMeanwhile_IsSafe) {
  const TempDir dir;
  for (int round = 0; round < 20; ++round) {
    ASSERT_OK_AND_ASSIGN(const auto arena, Create(dir.path(), 32 * 2 * kPage, 2 * kPage));
    const std::optional<Extent> extent = arena->Allocate(kPage);
    ASSERT_TRUE(extent);
    const std::atomic<bool> stop{false};
    std::thread prefault([&] { EXPECT_OK(arena->Prefault(stop)); });
    for (uint32_t i = 0; i < 32; ++i) Remove(dir.path(), *arena, i);
    EXPECT_THAT(arena->ReplaceUnlinked(), IsOkAndHolds(::testing::SizeIs(32)));
    arena->Free(*extent);
    prefault.join();
    EXPECT_EQ(arena->TakeRetired().size(), 32u);
  }
}

}  // namespace
}  // namespace stoker::arena
