// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/benchmark.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "hwy/aligned_allocator.h"
#include "server/transforms/gaf.h"
#include "tests/support/status_matchers.h"

namespace stoker::transforms {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::HasSubstr;

constexpr size_t kBytes = 1 << 20;

TEST(TransformBenchmark, AllPaths_OneRowAKernelAfterTheLimit) {
  hwy::AlignedFreeUniquePtr<uint8_t[]> memory = hwy::AllocateAligned<uint8_t>(kBytes);
  TransformBenchmarkOptions options;
  options.points = 33;
  options.repeats = 1;
  options.all_paths = true;
  const auto rows = RunTransformBenchmarks(options, {memory.get(), kBytes});
  ASSERT_OK(rows);
  ASSERT_EQ(rows->size(), 1 + 6 * GafPaths().size());
  EXPECT_EQ(rows->front().name, "streaming_stores");
  EXPECT_EQ((*rows)[1].name, "gaf_dual_f32_" + GafPaths().front());
  for (const TransformBenchmarkRow& row : *rows) {
    EXPECT_GT(row.bytes_per_second, 0.0) << row.name;
    EXPECT_GT(row.ratio_to_streaming, 0.0) << row.name;
    EXPECT_LE(row.low, row.high) << row.name;
    EXPECT_EQ(row.arithmetic_limit > 0.0, row.name != "streaming_stores") << row.name;
  }
}

TEST(TransformBenchmark, TooLittleMemory_InvalidArgument) {
  hwy::AlignedFreeUniquePtr<uint8_t[]> memory = hwy::AllocateAligned<uint8_t>(kBytes);
  EXPECT_THAT(RunTransformBenchmarks({}, {memory.get(), 4096}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("4096 bytes")));
  EXPECT_THAT(RunTransformBenchmarks({}, {memory.get() + 1, kBytes - 1}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("multiple of 64")));
  TransformBenchmarkOptions options;
  options.repeats = 0;
  EXPECT_THAT(RunTransformBenchmarks(options, {memory.get(), kBytes}),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("passes")));
}

}  // namespace
}  // namespace stoker::transforms
