// SPDX-License-Identifier: Apache-2.0
#include "server/transforms/paa.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>
#include <vector>

namespace stoker::transforms {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;

std::vector<int64_t> Cuts(int64_t n, int64_t size) {
  std::vector<int64_t> cuts = {0};
  for (const Segment& segment : PaaSegments(n, size, false)) {
    EXPECT_EQ(segment.begin, cuts.back());
    cuts.push_back(segment.end);
  }
  return cuts;
}

TEST(PaaSegments, LengthDividedBySize_EqualSegments) { EXPECT_THAT(Cuts(12, 4), ElementsAre(0, 3, 6, 9, 12)); }

TEST(PaaSegments, UnevenLength_CutsAsNumpyLinspaceTruncatesInDouble) {
  // 12 * 30 / 22 is 16.36, but 11 * (30.0 / 22) falls short of 15 in double.
  EXPECT_THAT(Cuts(30, 22),
              ElementsAreArray({0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 16, 17, 19, 20, 21, 23, 24, 25, 27, 28, 30}));
}

TEST(PaaSegments, SizeIsLength_OnePointEach) {
  EXPECT_THAT(Cuts(3, 3), ElementsAre(0, 1, 2, 3));
  EXPECT_THAT(PaaSegments(3, 3, true), ElementsAre(Segment{0, 1}, Segment{1, 2}, Segment{2, 3}));
}

TEST(PaaSegments, SizeOne_TheWholeSeries) {
  EXPECT_THAT(PaaSegments(7, 1, false), ElementsAre(Segment{0, 7}));
  EXPECT_THAT(PaaSegments(7, 1, true), ElementsAre(Segment{0, 7}));
}

TEST(PaaSegments, Overlapping_EqualWidthsThatShareTheirExcess) {
  EXPECT_THAT(PaaSegments(9, 5, true),
              ElementsAre(Segment{0, 2}, Segment{2, 4}, Segment{4, 6}, Segment{6, 8}, Segment{7, 9}));
  EXPECT_THAT(PaaSegments(12, 5, true),
              ElementsAre(Segment{0, 3}, Segment{3, 6}, Segment{5, 8}, Segment{7, 10}, Segment{9, 12}));
  EXPECT_THAT(PaaSegments(10, 3, true), ElementsAre(Segment{0, 4}, Segment{3, 7}, Segment{6, 10}));
}

TEST(PaaSegments, EverySizeBelow300_CoversTheSeriesWithoutEmptySegments) {
  for (int64_t n = 1; n < 300; ++n) {
    for (int64_t size = 1; size <= n; ++size) {
      for (const bool overlapping : {false, true}) {
        const std::vector<Segment> segments = PaaSegments(n, size, overlapping);
        ASSERT_EQ(segments.size(), static_cast<size_t>(size));
        ASSERT_EQ(segments.front().begin, 0);
        ASSERT_EQ(segments.back().end, n);
        for (size_t i = 0; i < segments.size(); ++i) {
          ASSERT_LT(segments[i].begin, segments[i].end) << n << " " << size;
          ASSERT_LE(segments[i].end, n);
          if (i > 0) {
            ASSERT_LE(segments[i].begin, segments[i - 1].end);
            ASSERT_GT(segments[i].end, segments[i - 1].end);
          }
        }
      }
    }
  }
}

TEST(PaaMeans, Segments_MeansOfTheirPoints) {
  std::vector<double> series(9);
  std::iota(series.begin(), series.end(), 0.0);
  std::vector<double> means(5);
  PaaMeans(series, PaaSegments(9, 5, true), absl::MakeSpan(means));
  EXPECT_THAT(means, ElementsAre(0.5, 2.5, 4.5, 6.5, 7.5));
}

TEST(PaaMeans, LargeAndSmallValues_AddedOneAfterTheOther) {
  // Pairwise the small ones would survive: 1e16 + (1 + 1).
  const std::vector<double> series = {1e16, 1.0, 1.0, 0.0};
  std::vector<double> means(1);
  PaaMeans(series, PaaSegments(4, 1, false), absl::MakeSpan(means));
  EXPECT_EQ(means[0], 1e16 / 4);
}

}  // namespace
}  // namespace stoker::transforms
