// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/merge.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "tests/support/status_matchers.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;

TEST(SortLabelsTest, Numbers_SortByValue) {
  EXPECT_THAT(SortLabels({"10", "9", "-1", "9", "1e0", "1"}), ElementsAre("-1", "1", "1e0", "9", "10"));
}

TEST(SortLabelsTest, OtherLabels_SortByBytes) {
  EXPECT_THAT(SortLabels({"b", "10", "9", "B"}), ElementsAre("10", "9", "B", "b"));
  EXPECT_THAT(SortLabels({"nan", "2", "10"}), ElementsAre("10", "2", "nan"));
  EXPECT_THAT(SortLabels({}), ElementsAre());
}

class MergeSummariesTest : public ::testing::Test {
 protected:
  // A unit of `file` with one series of `points` points on its first line.
  UnitSummary& Add(const std::string& file, uint64_t points, uint64_t lines = 10) {
    Unit unit;
    unit.set_unit(units_.size());
    unit.set_source(file);
    units_.push_back(unit);
    UnitSummary summary;
    summary.samples = summary.series = 1;
    summary.lines = lines;
    summary.channels = {"0"};
    summary.channel_min = {0};
    summary.channel_max = {1};
    summary.first = summary.shortest = summary.longest = {points, 0};
    summary.value_dtype = "F64";
    summary.target = Options::TARGET_CLASS;
    summary.labels = {{"a", 1}};
    summaries_.push_back(summary);
    return summaries_.back();
  }
  absl::StatusOr<MergedStore> Merge() { return MergeSummaries(units_, summaries_, options_); }

  std::vector<Unit> units_;
  std::vector<UnitSummary> summaries_;
  Options options_;
};

TEST_F(MergeSummariesTest, Lines_CountOnThroughAFile) {
  options_.set_unequal(Options::UNEQUAL_ERROR);
  Add("/f", 5, 100);
  Add("/f", 5, 7).labels = {{"c", 1}, {"b", 3}};
  Add("/g", 5).value_dtype = "F32";
  ASSERT_OK_AND_ASSIGN(const MergedStore merged, Merge());
  ASSERT_EQ(merged.patches.size(), 3u);
  EXPECT_EQ(merged.patches[0].first_line, 1);
  EXPECT_EQ(merged.patches[1].first_line, 101);
  EXPECT_EQ(merged.patches[2].first_line, 1);
  EXPECT_THAT(merged.patches[1].class_of, ElementsAre(2, 1));
  EXPECT_EQ(merged.manifest.classes(0).samples(), 2u);
  EXPECT_EQ(merged.manifest.time_series().value_dtype(), "F64");
}

TEST_F(MergeSummariesTest, EmptyUnits_AreNoShards) {
  Add("/f", 5);
  UnitSummary& empty = Add("/f", 5);
  empty.series = empty.samples = 0;
  empty.channels.clear();
  ASSERT_OK_AND_ASSIGN(const MergedStore merged, Merge());
  EXPECT_EQ(merged.patches.size(), 1u);
  EXPECT_EQ(merged.manifest.shards_size(), 1);
}

TEST_F(MergeSummariesTest, Disagreement_NamesBothPlaces) {
  options_.set_unequal(Options::UNEQUAL_ERROR);
  Add("/f", 5, 100);
  Add("/f", 6);
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kInvalidArgument,
                                AllOf(HasSubstr("/f:101: a series of 6 points"), HasSubstr("/f:1 has 5"))));
  summaries_[1].first = {5, 0};
  summaries_[1].differing = {9, 3};
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/f:104: a series of 9 points")));
  summaries_[1].differing = {};
  summaries_[1].target = Options::TARGET_VALUE;
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kInvalidArgument,
                                AllOf(HasSubstr("/f:101"), HasSubstr("values"), HasSubstr("classes"))));
  summaries_[1].target = Options::TARGET_CLASS;
  summaries_[1].channels = {"0", "1"};
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/f:101: 2 channels, /f:1 has 1")));
}

TEST_F(MergeSummariesTest, FileWithoutSeries_IsRefused) {
  Add("/f", 5);
  UnitSummary& empty = Add("/g", 5);
  empty.series = empty.samples = 0;
  EXPECT_THAT(Merge(), StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("/g: there is no series")));
}

TEST(UnitSummaryTest, Json_ReadsBack) {
  UnitSummary summary;
  summary.samples = 3;
  summary.channels = {"a\"b", "\xE2\x82\xAC"};
  summary.channel_min = {-0.1, 1e-300};
  summary.channel_max = {0.30000000000000004, 1e300};
  summary.shortest = {5, 7};
  summary.value_dtype = "F32";
  summary.target = Options::TARGET_VALUE;
  summary.labels = {{"x", 2}};
  summary.declared = {"x", "y"};
  summary.skipped = {{"why", 4, 9}};
  summary.by_line = false;
  ASSERT_OK_AND_ASSIGN(const UnitSummary read, UnitSummary::FromJson(summary.ToJson()));
  EXPECT_EQ(read, summary);
}

TEST(UnitSummaryTest, OtherJson_IsDataLoss) {
  for (const char* text : {"", "{}", "[]", "{\"samples\": \"x\"}"}) {
    EXPECT_THAT(UnitSummary::FromJson(text), StatusIs(absl::StatusCode::kDataLoss, HasSubstr("summary"))) << text;
  }
}

}  // namespace
}  // namespace stoker::ingest
