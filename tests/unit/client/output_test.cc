// SPDX-License-Identifier: Apache-2.0
#include "client/ctl/output.h"

#include <gtest/gtest.h>

#include <sstream>

#include "stoker/v1/service.pb.h"

namespace stoker::ctl {
namespace {

class OutputTest : public ::testing::Test {
 protected:
  std::ostringstream out_;
  std::ostringstream err_;
  Output output_{out_, err_, false, false, false, false};
};

TEST(ExitCodeTest, FollowsTheContract) {
  const auto code = [](absl::StatusCode code, const char* message = "x") {
    return static_cast<int>(ExitCodeOf(absl::Status(code, message)));
  };
  EXPECT_EQ(code(absl::StatusCode::kOk), 0);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "walks.csv:7: not a number"), 4);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "recipe.gaf.image_size: 1 is not in [2, 96]"), 2);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "plan.rank: 3 is not in [0, 2]"), 2);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "ingest options: window: 1 is not at least 2"), 2);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "options: --from x: must be EPOCH:STEP"), 2);
  EXPECT_EQ(code(absl::StatusCode::kInvalidArgument, "planets.csv:3: ragged"), 4);
  EXPECT_EQ(code(absl::StatusCode::kDataLoss), 4);
  EXPECT_EQ(code(absl::StatusCode::kUnavailable), 3);
  EXPECT_EQ(code(absl::StatusCode::kResourceExhausted), 5);
  EXPECT_EQ(code(absl::StatusCode::kNotFound), 6);
  EXPECT_EQ(code(absl::StatusCode::kPermissionDenied), 6);
  EXPECT_EQ(code(absl::StatusCode::kFailedPrecondition), 6);
  EXPECT_EQ(code(absl::StatusCode::kInternal), 70);
}

TEST_F(OutputTest, Fail_IsOneLine) {
  EXPECT_EQ(Fail(output_, "ingest x", absl::DataLossError("a.ts:4: bad\nsecond")), kBadData);
  EXPECT_EQ(err_.str(), "stokerctl: ingest x: a.ts:4: bad | second\n");
  EXPECT_EQ(out_.str(), "");
}

TEST_F(OutputTest, PrintJson_HasProtoNamesAndDefaults) {
  v1::StatusReply status;
  status.set_state(v1::StatusReply::SERVING);
  PrintJson(output_, status);
  EXPECT_NE(out_.str().find("\"instance_id\": \"\""), std::string::npos) << out_.str();
  EXPECT_NE(out_.str().find("\"state\": \"SERVING\""), std::string::npos);
}

TEST_F(OutputTest, Table_AlignsNumbersToTheRight_AndCountsCharacters) {
  Table table({"name", "count"});
  table.Add({"gärten", "7"});
  table.Add({"b", "1 234"});
  table.Print(out_);
  EXPECT_EQ(out_.str(), "name    count\ngärten      7\nb       1 234\n");
}

TEST_F(OutputTest, PrintFields_AlignsValues) {
  PrintFields(out_, {{"a", "1"}, {"long", "2"}});
  EXPECT_EQ(out_.str(), "a     1\nlong  2\n");
}

TEST(FormatTest, CountsAndSeconds) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(1234567), "1 234 567");
  EXPECT_EQ(FormatSeconds(0.25), "250 ms");
  EXPECT_EQ(FormatSeconds(12.34), "12.3 s");
  EXPECT_EQ(FormatSeconds(245), "4 min 05 s");
  EXPECT_EQ(FormatSeconds(11520), "3 h 12 min");
  EXPECT_EQ(FormatSeconds(-1), "?");
}

TEST_F(OutputTest, Progress_OnATerminal_RewritesOneLineAndTakesItAway) {
  output_.err_is_terminal = true;
  const absl::Time start = absl::Now();
  {
    Progress progress(output_, "read x");
    progress.Update(1 << 20, 4 << 20, "at 0:1", start + absl::Seconds(1));
    progress.Update(2 << 20, 4 << 20, "at 0:2", start + absl::Seconds(1.01));  // too soon
    progress.Update(3 << 20, 4 << 20, "at 0:3", start + absl::Seconds(2));
  }
  const std::string text = err_.str();
  EXPECT_NE(text.find("read x  1.00 MiB of 4.00 MiB (25 %)"), std::string::npos) << text;
  EXPECT_NE(text.find("left  at 0:1"), std::string::npos);
  EXPECT_EQ(text.find("at 0:2"), std::string::npos);
  EXPECT_NE(text.find("at 0:3"), std::string::npos);
  EXPECT_EQ(text.find('\n'), std::string::npos);
  EXPECT_EQ(text.substr(text.size() - 4), "\r\033[K");
}

TEST_F(OutputTest, Progress_IntoAPipe_IsALineEveryFewSeconds) {
  const absl::Time start = absl::Now();
  Progress progress(output_, "read x");
  progress.Update(1, 0, "", start);
  progress.Update(1 << 20, 0, "", start + absl::Seconds(1));
  EXPECT_EQ(err_.str(), "");
  progress.Update(2 << 20, 0, "", start + absl::Seconds(6));
  progress.Update(2 << 20, 0, "", start + absl::Seconds(7));
  const std::string text = err_.str();
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1) << text;
}

TEST_F(OutputTest, Progress_Quiet_SaysNothing) {
  output_.quiet = true;
  Progress(output_, "read x").Update(1, 2, "", absl::Now() + absl::Hours(1));
  EXPECT_EQ(err_.str(), "");
}

}  // namespace
}  // namespace stoker::ctl
