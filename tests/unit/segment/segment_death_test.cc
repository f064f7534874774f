// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>
#include <unistd.h>

#include "absl/strings/str_cat.h"
#include "shared/segment/segment.h"
#include "tests/support/instance_id.h"
#include "tests/support/status_matchers.h"

namespace stoker::segment {
namespace {

TEST(MappedSegmentDeathTest, WriteToAReadOnlyMapping_KillsTheWriterAndChangesNothing) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  constexpr uint64_t kSize = 1 << 16;
  ASSERT_OK_AND_ASSIGN(const Segment segment,
                       Segment::Create({.instance_id = testing::RandomInstanceId(), .size_bytes = kSize}));
  v1::SegmentDescriptor descriptor;
  segment.Describe(&descriptor);
  ASSERT_OK_AND_ASSIGN(const MappedSegment mapped, MappedSegment::MapReadOnly(descriptor));
  auto* bytes = const_cast<volatile uint8_t*>(mapped.data());
  // The child makes a segment of its own, which nobody would remove. Its end is SIGSEGV, or a sanitizer's report of it.
  EXPECT_DEATH(
      {
        ::unlink(absl::StrCat(descriptor.directory(), "/", descriptor.name()).c_str());
        bytes[5000] = 1;
      },
      "");
  EXPECT_EQ(segment.data()[5000], 0);
}

}  // namespace
}  // namespace stoker::segment
