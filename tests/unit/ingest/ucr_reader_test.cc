// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/ucr_reader.h"

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

class UcrReaderTest : public ::testing::Test {
 protected:
  absl::StatusOr<std::shared_ptr<const store::TimeSeriesStore>> Read(const std::string& text,
                                                                     const Options& options = {}) {
    return harness_.Open({harness_.Write("x.tsv", text)}, options);
  }
  void ExpectBad(const std::string& text, const std::string& place, const std::string& reason) {
    EXPECT_THAT(Read(text), StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr(place), HasSubstr(reason))))
        << text;
  }

  IngestHarness harness_;
};

TEST_F(UcrReaderTest, TabsCommasAndRunsOfSpaces_Separate) {
  for (const char* text : {"-1\t1\t2.5\n1\t3\t4\n", "-1,1,2.5\r\n1,3,4\r\n", "  -1   1 2.5  \n 1 3   4"}) {
    ASSERT_OK_AND_ASSIGN(const auto store, Read(text));
    EXPECT_EQ(store->samples(), 2u);
    EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2.5));
    EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("-1", "1"));
    EXPECT_EQ(store->Sample(1)->class_id, 1);
  }
}

TEST_F(UcrReaderTest, OldText_KeepsTheLabelsSpelling) {
  ASSERT_OK_AND_ASSIGN(const auto store, Read("   2.0000000e+00  -6.4e-01 1\n   1.0000000e+00 2 3\n"));
  EXPECT_THAT(ClassLabels(store->manifest()), ElementsAre("1.0000000e+00", "2.0000000e+00"));
}

TEST_F(UcrReaderTest, MissingValuesAtTheEnd_ArePadding) {
  Options options;
  options.set_unequal(Options::UNEQUAL_PAD);
  options.set_missing(Options::MISSING_LINEAR);
  ASSERT_OK_AND_ASSIGN(const auto store, Read("1\t1\tNaN\t3\n2\t4\tNaN\tNaN\n3\t5\t6\t\n", options));
  EXPECT_THAT(Channel(*store, 0, 0), ElementsAre(1, 2, 3));
  EXPECT_THAT(Channel(*store, 1, 0), ElementsAre(4));
  EXPECT_THAT(Channel(*store, 2, 0), ElementsAre(5, 6));
  EXPECT_THAT(Read("1\t1\t3\n2\t4\tNaN\n"),
              StatusIs(absl::StatusCode::kInvalidArgument, AllOf(HasSubstr("x.tsv:2"), HasSubstr("--unequal"))));
}

TEST_F(UcrReaderTest, TargetValue_ReadsTheLabel) {
  Options options;
  options.set_target(Options::TARGET_VALUE);
  ASSERT_OK_AND_ASSIGN(const auto store, Read("0.5\t1\t2\n", options));
  EXPECT_THAT(store->Sample(0)->values, ElementsAre(0.5));
  EXPECT_THAT(Read("a\t1\t2\n", options),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("x.tsv:1: target 'a'")));
}

TEST_F(UcrReaderTest, MalformedLines_AreRefused) {
  ExpectBad("1\t2\n1\tx\n", "x.tsv:2", "value 0 is 'x'");
  ExpectBad("1\t2\n1\n", "x.tsv:2", "no values");
  ExpectBad("1\tNaN\n", "x.tsv:1", "no values");
  ExpectBad("\t1\t2\n", "x.tsv:1", "the label is empty");
  ExpectBad("1\t?\t2\n", "x.tsv:1, point 0", "--missing linear");
  ExpectBad("\xFF\t1\t2\n", "x.tsv:1", "not short UTF-8");
  ExpectBad("\n\n", "x.tsv", "no series");
}

}  // namespace
}  // namespace stoker::ingest
