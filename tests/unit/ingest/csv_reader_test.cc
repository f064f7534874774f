// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/csv_reader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_format.h"
#include "tests/support/status_matchers.h"
#include "tests/unit/ingest/ingest_harness.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Options = v1::IngestOptions;

class CsvReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const store::TimeSeriesStore>> Read(const std::string& text,
                                                                     const Options& options = {}) {
    return harness_.Open({harness_.Write("x.csv", text)}, options);
  }
  void ExpectBad(const std::string& text, const Options& options, const std::string& place, const std::string& reason) {
    EXPECT_THAT(Read(text, options),
                StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(place), HasSubstr(reason))))
        << text;
  }

  IngestHarness harness_;
};

TEST_F(CsvReaderTest, ForecastingTable_IsOneSeries) {
  ASSERT_OK_AND_ASSIGN(const auto store,
                       Read("date,A,B\n2016-07-01 00:00:00,1,2\n2016-07-01 01:00:00,3,4\n2016-07-01 02:00:00,5,6\n"));
  EXPECT_EQ(store->samples(), 1u);
  EXPECT_THAT(store->manifest().time_series().channels(), ElementsAre("A", "B"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 3, 5));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(2, 4, 6));
  EXPECT_EQ(store->manifest().target(), Options::TARGET_NONE);
}

TEST_F(CsvReaderTest, Windows_DropTheTail) {
  Options options;
  options.set_window(2);
  options.set_stride(1);
  ASSERT_OK_AND_ASSIGN(auto store, Read("a\n1\n2\n3\n4\n", options));
  EXPECT_EQ(store->samples(), 3u);
  EXPECT_THAT(Channel(*store, 2, 0), ElementsAre(3, 4));
  EXPECT_THAT(store->SampleName(2), HasSubstr("x.csv:2 points 2..3"));
  options.set_stride(0);
  options.set_window(3);
  ASSERT_OK_AND_ASSIGN(store, Read("a\n1\n2\n3\n4\n", options));
  EXPECT_EQ(store->samples(), 1u);
}

// The rules of gaf-semantics §1.1: working filter, sort, gap, short segments out, one class a file.
TEST_F(CsvReaderTest, FaultFiles_FollowTheRules) {
  Options options;
  options.set_window(2);
  options.mutable_csv()->set_label_from_file_name(true);
  options.mutable_csv()->set_working_column("is_working");
  options.mutable_csv()->set_gap_seconds(7200);
  options.mutable_csv()->add_exclude("SYS_CTL");
  options.mutable_csv()->add_exclude("hour");
  const std::string header = "Datetime,is_working,SYS_CTL,T1,T2\n";
  const std::string normal =
      harness_.Write("normal.csv", header +
                                       "2018-01-01 02:00:00,1,on,5,50\n"    // after exactly 2 h: same segment
                                       "2018-01-01 00:00:00,1,on,1,10\n"    // out of order
                                       "2018-01-01 00:05:00,0,off,text,\n"  // not working: not even read
                                       "2018-01-01 04:00:01,1,on,7,70\n"    // 2 h 1 s later: a new segment, too short
                                       "2018-01-01 08:00:00,1.0,on,8,80\n"
                                       "2018-01-01 08:05:00,1,on,9,90\n"
                                       "2018-01-01 08:10:00,1,on,10,100\n");  // the tail
  const std::string fault = harness_.Write("damper stuck.csv", header +
                                                                   "2018-01-01 00:00:00,1,on,0,0\n"
                                                                   "2018-01-01 00:05:00,1,on,0,0\n");
  ASSERT_OK_AND_ASSIGN(const auto store, harness_.Open({normal, fault}, options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("damper stuck", "normal"));
  EXPECT_THAT(store->manifest().time_series().channels(), ElementsAre("T1", "T2"));
  ASSERT_EQ(store->samples(), 3u);
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 5));
  EXPECT_THAT(Channel(*store, 1, 1), ElementsAre(80, 90));
  EXPECT_THAT(Channel(*store, 2, 1), ElementsAre(0, 0));
  EXPECT_EQ(store->Sample(0)->class_id, 1);
  EXPECT_EQ(store->Sample(2)->class_id, 0);
  EXPECT_EQ(store->manifest().classes(1).samples(), 2u);
  EXPECT_THAT(store->manifest().time_series().channel_max(),
              ElementsAre(10, 100));  // the tail counts, the rest does not
  ASSERT_EQ(store->manifest().skipped_size(), 2);
  EXPECT_THAT(store->manifest().skipped(0).reason(), HasSubstr("--exclude names no column: hour"));
  EXPECT_EQ(store->manifest().skipped(1).reason(), kTooShort);
  EXPECT_EQ(store->manifest().skipped(1).count(), 1u);
  EXPECT_THAT(store->manifest().skipped(1).first(), HasSubstr("normal.csv:5"));
  EXPECT_THAT(store->SampleName(0), HasSubstr("normal.csv:3 points 0..1"));
}

TEST_F(CsvReaderTest, ChangeOfLabel_StartsASegment) {
  Options options;
  options.mutable_csv()->set_label("y");
  options.set_unequal(Options::UNEQUAL_PAD);
  ASSERT_OK_AND_ASSIGN(auto store, Read("a,y\n1,u\n2,u\n3,v\n4,u\n", options));
  ASSERT_EQ(store->samples(), 3u);
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2));
  EXPECT_THAT(Channel(*store, 2, 0), ElementsAre(4));
  EXPECT_EQ(store->Sample(1)->class_id, 1);
  EXPECT_EQ(store->Sample(2)->class_id, 0);
  options.set_target(Options::TARGET_VALUE);
  ASSERT_OK_AND_ASSIGN(store, Read("a,y\n1,0.5\n2,0.5\n3,7\n", options));
  EXPECT_THAT(store->Sample(1)->values, ElementsAre(7));
  ExpectBad("a,y\n1,u\n", options, "x.csv:2", "target 'u'");
  ExpectBad("a,y\n1,\n", options, "x.csv:2", "label in column 'y' is empty");
}

TEST_F(CsvReaderTest, QuotedFields_MayHoldAnything) {
  Options options;
  options.mutable_csv()->set_label("the \"label\", quoted");
  ASSERT_OK_AND_ASSIGN(const auto store,
                       Read("\xEF\xBB\xBF \"the \"\"label\"\", quoted\" ,a\r\n\"one\ntwo\",\"1.5\"\r\n"
                            "\"one\ntwo\", 2 \r\n",
                            options));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("one\ntwo"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1.5, 2));
}

TEST_F(CsvReaderTest, MissingCells_FollowTheOption) {
  const std::string text = "a,b\n1,\n,NA\n3,null\n";
  ExpectBad(text, {}, "x.csv:3", "channel 'a' has a missing value");
  Options options;
  options.set_missing(Options::MISSING_ZERO);
  ASSERT_OK_AND_ASSIGN(auto store, Read(text, options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 0, 3));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(0, 0, 0));
  options.set_missing(Options::MISSING_LINEAR);
  options.mutable_csv()->add_exclude("b");
  ASSERT_OK_AND_ASSIGN(store, Read(text, options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2, 3));
}

TEST_F(CsvReaderTest, ChosenChannels_NeedNoOthersToBeNumbers) {
  Options options;
  options.add_channels("c");
  options.add_channels("a");
  ASSERT_OK_AND_ASSIGN(const auto store, Read("a,b,c\n1,text,2\n3,text,4\n", options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(2, 4));
  EXPECT_THAT(Channel(*store, 0, 1), ElementsAre(1, 3));
}

TEST_F(CsvReaderTest, RowsOfEqualTime_KeepTheirOrder) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("ts,a\n5,1\n4,2\n5,3\n4,4\n"));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(2, 4, 1, 3));
}

TEST_F(CsvReaderTest, NotANumber_NamesLineColumnAndRemedy) {
  ExpectBad("date,a,mode\n2016-07-01,1,heat\n", {}, "x.csv:2: column 'mode' is 'heat'", "--exclude mode");
}

TEST_F(CsvReaderTest, MalformedTables_AreRefused) {
  ExpectBad("1,2\n3,4\n", {}, "x.csv:1", "first line holds numbers");
  ExpectBad("a,a\n3,4\n", {}, "x.csv:1", "column 'a' is there twice");
  ExpectBad("a,b\n3,4\n5\n", {}, "x.csv:3", "1 fields, the header has 2");
  ExpectBad("a,b\n3,\"4\n5,6\n", {}, "x.csv:2", "a quotation that does not end");
  ExpectBad("a,b\n3,\"4\"x\n", {}, "x.csv:2", "after a closing quotation mark");
  ExpectBad("a,b\n", {}, "x.csv", "no series");
  ExpectBad("\n\n", {}, "x.csv", "empty");
  ExpectBad("date\n2016-01-01\n", {}, "x.csv:1", "no columns are left");
  ExpectBad("date,a\nyesterday,1\n", {}, "x.csv:2", "time 'yesterday'");
  ExpectBad("date,a\n,1\n", {}, "x.csv:2", "time ''");
  ExpectBad("a,b\n1,inf\n", {}, "x.csv:2", "infinite");
}

TEST_F(CsvReaderTest, ColumnsThatAreNotThere_AreRefused) {
  Options options;
  options.mutable_csv()->set_time_column("when");
  ExpectBad("a,b\n1,2\n", options, "x.csv:1: no column 'when'", "--time-column takes of a,b");
  options.Clear();
  options.mutable_csv()->set_working_column("on");
  ExpectBad("a,b\n1,2\n", options, "x.csv:1: no column 'on'", "--working-column");
  options.Clear();
  options.mutable_csv()->set_label("y");
  ExpectBad("a,b\n1,2\n", options, "x.csv:1: no column 'y'", "--label");
  options.Clear();
  options.add_channels("c");
  ExpectBad("a,b\n1,2\n", options, "x.csv:1: no column 'c'", "--channels");
  options.Clear();
  options.mutable_csv()->set_gap_seconds(1);
  ExpectBad("a,b\n1,2\n", options, "x.csv:1: no column of times", "--time-column");
  options.Clear();
  options.mutable_csv()->set_working_column("b");
  ExpectBad("a,b\n1,yes\n", options, "x.csv:2: column 'b' is 'yes'", "1 or 0");
}

TEST_F(CsvReaderTest, WindowLongerThanEverySegment_IsRefused) {
  Options options;
  options.set_window(5);
  ExpectBad("a\n1\n2\n", options, "x.csv:2", "the window of 5 points is longer than every series");
}

TEST_F(CsvReaderTest, ChannelsOfFilesThatDiffer_AreRefused) {
  const std::string one = harness_.Write("one.csv", "a,b\n1,2\n");
  const std::string two = harness_.Write("two.csv", "a,c\n1,2\n");
  EXPECT_THAT(harness_.Open({one, two}),
              StatusIs(absl::StatusCode::kInvalidArgument,
                       AllOf(HasSubstr("two.csv:2: channel 1 is 'c'"), HasSubstr("one.csv:2 it is 'b'"))));
}

}  // namespace
}  // namespace stoker::ingest
