// SPDX-License-Identifier: Apache-2.0
#include "client/src/segment_cache.h"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <optional>

#include "tests/support/instance_id.h"
#include "tests/support/status_matchers.h"

namespace stoker::client {
namespace {

using testing::StatusIs;

class SegmentCacheTest : public ::testing::Test {
 protected:
  static segment::Segment MakeSegment(uint64_t generation) {
    segment::SegmentOptions options;
    options.instance_id = testing::RandomInstanceId();
    options.generation = generation;
    options.size_bytes = 5 << 20;
    return *segment::Segment::Create(options);
  }
  static v1::SegmentDescriptor Describe(const segment::Segment& segment) {
    v1::SegmentDescriptor descriptor;
    segment.Describe(&descriptor);
    return descriptor;
  }
  SegmentCache cache_;
};

TEST_F(SegmentCacheTest, Get_MapsASegmentOnce) {
  const segment::Segment segment = MakeSegment(1);
  ASSERT_OK_AND_ASSIGN(const auto first, cache_.Get(Describe(segment)));
  ASSERT_OK_AND_ASSIGN(const auto second, cache_.Get(Describe(segment)));
  EXPECT_EQ(first, second);
}

TEST_F(SegmentCacheTest, OfProcess_IsOneAsLongAsSomebodyHasIt) {
  const segment::Segment segment = MakeSegment(1);
  std::weak_ptr<ClientSegment> mapped;
  {
    const std::shared_ptr<SegmentCache> first = SegmentCache::OfProcess();
    EXPECT_EQ(SegmentCache::OfProcess(), first);
    mapped = *first->Get(Describe(segment));
    EXPECT_FALSE(mapped.expired());
  }
  EXPECT_TRUE(mapped.expired());
  EXPECT_NE(SegmentCache::OfProcess(), nullptr);
}

TEST_F(SegmentCacheTest, Get_OfAMissingOne_IsNotFound) {
  v1::SegmentDescriptor descriptor;
  descriptor.set_name("stoker.0000000000000000.1");
  descriptor.set_directory("/dev/shm");
  EXPECT_THAT(cache_.Get(descriptor), StatusIs(absl::StatusCode::kNotFound));
}

TEST_F(SegmentCacheTest, Get_OfANewSegment_DropsThoseWhoseNamesAreGone) {
  std::optional<segment::Segment> old = MakeSegment(1);
  std::weak_ptr<ClientSegment> mapped = *cache_.Get(Describe(*old));
  old.reset();
  EXPECT_FALSE(mapped.expired());
  const segment::Segment segment = MakeSegment(2);
  ASSERT_OK_AND_ASSIGN(const auto current, cache_.Get(Describe(segment)));
  EXPECT_TRUE(mapped.expired());
}

TEST_F(SegmentCacheTest, Populate_EntersThePagesOfTheRange) {
  segment::Segment segment = MakeSegment(1);
  ASSERT_OK_AND_ASSIGN(const auto mapped, cache_.Get(Describe(segment)));
  mapped->Populate(3 << 20, 4096);
  mapped->Populate(0, segment.size_bytes());  // up to the end, which is no whole block
  unsigned char resident = 0;
  uint8_t* page = const_cast<uint8_t*>(mapped->data()) + (4 << 20);
  ASSERT_EQ(::mincore(page, 4096, &resident), 0);
  EXPECT_EQ(resident & 1, 1);
}

}  // namespace
}  // namespace stoker::client
