// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ts_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;

constexpr char kHeader[] = "@problemName p\n@classLabel true a B\n@data\n";

class TsReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const store::TimeSeriesStore>> Read(const std::string& text,
                                                                     const Options& options = {}) {
    return harness_.Open({harness_.Write("x.ts", text)}, options);
  }
  void ExpectBad(const std::string& text, const std::string& place, const std::string& reason) {
    EXPECT_THAT(Read(text), StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(place), HasSubstr(reason))))
        << text;
  }

  IngestHarness harness_;
};

TEST_F(TsReaderTest, Multivariate_KeepsOrderAndSpelling) {
  ASSERT_OK_AND_ASSIGN(const auto store,
                       Read("\xEF\xBB\xBF#c\r\n%#d\r\n\r\n@TimeStamps FALSE\r\n@classlabel TRUE b A\r\n"
                            "@dimensions 2\r\n@Data\r\n1, 2 ,3:-4,+5,6e1:A\r\n# no case\r\n\r\n7,8,9:1,2,3: b \r\n"));
  EXPECT_EQ(store->samples(), 2u);
  EXPECT_THAT(store->manifest().time_series().channels(), ElementsAre("0", "1"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(-4, 5, 60));
  EXPECT_THAT(Channel(*store, 1, 1), ElementsAre(1, 2, 3));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("A", "b"));
  EXPECT_EQ(store->Sample(0)->class_id, 0);
  EXPECT_EQ(store->Sample(1)->class_id, 1);
  EXPECT_THAT(store->SampleName(1), HasSubstr("x.ts:11"));
  EXPECT_THAT(store->manifest().time_series().channel_min(), ElementsAre(1, -4));
  EXPECT_THAT(store->manifest().time_series().channel_max(), ElementsAre(9, 60));
}

TEST_F(TsReaderTest, ListedClassWithoutCase_HasAnId) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("@classLabel true 10 9 1\n@data\n1,2:10\n"));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("1", "9", "10"));  // by number, not by bytes
  EXPECT_EQ(store->Sample(0)->class_id, 2);
  EXPECT_EQ(store->manifest().classes(0).samples(), 0u);
}

TEST_F(TsReaderTest, Regression_HasValues) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("@targetlabel true\n@data\n1,2:0.5\n3,4:-1e3\n"));
  EXPECT_EQ(store->manifest().target(), Options::TARGET_VALUE);
  EXPECT_THAT(store->Sample(1)->values, ElementsAre(-1000));
  EXPECT_EQ(store->Sample(1)->class_id, -1);
}

TEST_F(TsReaderTest, NoLabels_HaveNoTarget) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("@classLabel false\n@data\n1,2:3,4\n"));
  EXPECT_EQ(store->manifest().target(), Options::TARGET_NONE);
  EXPECT_EQ(store->channels(), 2u);
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(3, 4));
}

TEST_F(TsReaderTest, TargetOption_Wins) {
  Options options;
  options.set_target(Options::TARGET_NONE);
  ASSERT_OK_AND_ASSIGN(auto store, Read("@classLabel true 1 2\n@data\n1,2:2\n", options));
  EXPECT_EQ(store->manifest().target(), Options::TARGET_NONE);
  options.set_target(Options::TARGET_VALUE);
  ASSERT_OK_AND_ASSIGN(store, Read("@classLabel true 1 2\n@data\n1,2:2\n", options));
  EXPECT_THAT(store->Sample(0)->values, ElementsAre(2));
  EXPECT_THAT(Read("@classLabel true a\n@data\n1,2:a\n", options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x.ts:3: target 'a' is not a finite number")));
}

TEST_F(TsReaderTest, Timestamps_AreDroppedWithSignsAndIntegersKept) {
  ASSERT_OK_AND_ASSIGN(const auto store,
                       Read("@timeStamps true\n@classLabel true 1\n@data\n"
                            "(2007-01-01 00:00:00,-241.97),(2007-01-01 00:01:00,7):(0, +1),(1,-2e0):1\n"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(-241.97, 7));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(1, -2));
}

TEST_F(TsReaderTest, BadTimestamps_AreRefused) {
  const std::string header = "@timeStamps true\n@classLabel true 1\n@data\n";
  ExpectBad(header + "1,2:1\n", "x.ts:4", "expected (time,value)");
  ExpectBad(header + "(2007,x):1\n", "x.ts:4", "not a number");
  ExpectBad(header + "(2007-01-01 00:00:00):1\n", "x.ts:4", "not a number");
  ExpectBad(header + "(1,2)(3,4):1\n", "x.ts:4", "channel 0, point 0");
  ExpectBad(header + "(1,2),(3,4)\n", "x.ts:4", "no label");
}

TEST_F(TsReaderTest, MissingValues_FollowTheOption) {
  const std::string text = std::string(kHeader) + "?,1,NaN,nan,4,?:0,0,0,0,0,0:a\n";
  EXPECT_THAT(Read(text), StatusIs(absl::StatusCode::kInvalidArgument,
                                   AllOf(HasSubstr("x.ts:4, point 0"), HasSubstr("--missing linear"))));
  Options options;
  options.set_missing(Options::MISSING_LINEAR);
  ASSERT_OK_AND_ASSIGN(auto store, Read(text, options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 1, 2, 3, 4, 4));
  options.set_missing(Options::MISSING_ZERO);
  ASSERT_OK_AND_ASSIGN(store, Read(text, options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(0, 1, 0, 0, 4, 0));
  options.set_missing(Options::MISSING_LINEAR);
  EXPECT_THAT(Read(std::string(kHeader) + "1,2:?,?:a\n", options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("channel '1' has no value at all")));
}

TEST_F(TsReaderTest, MissingMarksInLabels_AreLabels) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("@classLabel true nano ?\n@data\n1,2:?\n1,2:nano\n"));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("?", "nano"));
}

TEST_F(TsReaderTest, UnequalLengths_FollowTheOption) {
  const std::string text = std::string(kHeader) + "1,2,3:a\n4,5:B\n6,7,8,9:a\n";
  EXPECT_THAT(Read(text),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("x.ts:5: a series of 2 points"),
                                                                 HasSubstr("x.ts:4 has 3"), HasSubstr("--unequal"))));
  Options options;
  options.set_unequal(Options::UNEQUAL_CROP);
  ASSERT_OK_AND_ASSIGN(auto store, Read(text, options));
  EXPECT_EQ(store->length_max(), 2u);
  EXPECT_THAT(Channel(*store, 2, 0), ElementsAre(6, 7));
  options.set_unequal(Options::UNEQUAL_PAD);
  ASSERT_OK_AND_ASSIGN(store, Read(text, options));
  EXPECT_EQ(store->length_max(), 4u);
  EXPECT_EQ(store->manifest().time_series().length_min(), 2u);
  EXPECT_THAT(Channel(*store, 1, 0), ElementsAre(4, 5));
  EXPECT_EQ(store->manifest().time_series().unequal(), Options::UNEQUAL_PAD);
}

TEST_F(TsReaderTest, ChosenChannels_ComeInTheirOrder) {
  Options options;
  options.add_channels("2");
  options.add_channels("0");
  const std::string text = std::string(kHeader) + "1,2:3,4:5,6:a\n";
  ASSERT_OK_AND_ASSIGN(const auto store, Read(text, options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(5, 6));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(1, 2));
  options.add_channels("3");
  EXPECT_THAT(Read(text, options),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("no channel '3'"), HasSubstr("0,1,2"))));
}

TEST_F(TsReaderTest, MalformedHeaders_AreRefused) {
  ExpectBad("1,2,3\n", "x.ts:1", "expected a comment, a tag or @data");
  ExpectBad("@classLabel true a\n", "x.ts", "no @data line");
  ExpectBad("@classLabel true\n@data\n1:a\n", "x.ts:1", "lists no class");
  ExpectBad("@classLabel maybe\n@data\n1:a\n", "x.ts:1", "'maybe'");
  ExpectBad("@timestamps\n@data\n1:a\n", "x.ts:1", "@timestamps is ''");
  ExpectBad("@\n@data\n", "x.ts:1", "@ without a tag");
  ExpectBad("@univariate true\n@classLabel true a\n@data\n1,2:3,4:a\n", "x.ts:4", "@univariate true");
  ExpectBad(kHeader, "x.ts", "no series");
}

TEST_F(TsReaderTest, MalformedCases_AreRefused) {
  const std::string header = kHeader;
  ExpectBad(header + "1,2:3,4:a\n1,2:c\n", "x.ts:5", "unknown label 'c'");
  ExpectBad(header + "1,2:3:a\n", "x.ts:4", "channel 1 has 1 points, channel 0 has 2");
  ExpectBad(header + "1,2:3,4:a\n1,2:a\n", "x.ts:5", "1 channels, the cases before have 2");
  ExpectBad(header + "1,2\n", "x.ts:4", "no label");
  ExpectBad(header + "1,2:\n", "x.ts:4", "unknown label ''");
  ExpectBad(header + "1,,2:a\n", "x.ts:4: channel 0, point 1", "no value");
  ExpectBad(header + "1,2,:a\n", "x.ts:4: channel 0, point 2", "no value");
  ExpectBad(header + ":a\n", "x.ts:4: channel 0, point 0", "no value");
  ExpectBad(header + "1,two:a\n", "x.ts:4: channel 0, point 1", "'two' is not a number");
  ExpectBad(header + "1,2x:a\n", "x.ts:4: channel 0, point 1", "'2x' is not a number");
  ExpectBad(header + "1,inf:a\n", "x.ts:4, point 1", "infinite");
  ExpectBad(header + "1,1e999:a\n", "x.ts:4, point 1", "infinite");
}

TEST_F(TsReaderTest, AllTheUnits_SeeEachCaseOnce) {
  std::string text = "@classLabel true a\n@data\n";
  const int cases = 40000;  // about 24 MB: three units
  for (int i = 0; i < cases; ++i) {
    absl::StrAppend(&text, i);
    for (int k = 0; k < 99; ++k) text += ",12345";
    text += ":a\n";
  }
  ASSERT_OK_AND_ASSIGN(const auto store, Read(text));
  EXPECT_EQ(store->manifest().shards_size(), 3);
  ASSERT_EQ(store->samples(), static_cast<uint64_t>(cases));
  for (int i = 0; i < cases; ++i) ASSERT_EQ(Channel(*store, static_cast<uint64_t>(i), 0)[0], i);
  EXPECT_THAT(store->SampleName(0), HasSubstr("x.ts:3"));
  EXPECT_THAT(store->SampleName(cases - 1), HasSubstr(absl::StrCat("x.ts:", cases + 2)));
  text += "1,2:b\n";
  ExpectBad(text, absl::StrCat("x.ts:", cases + 3), "unknown label 'b'");
}

}  // namespace
}  // namespace stoker::ingest
