// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/support/status_matchers.h"
#include "tests/support/temp_dir.h"

namespace stoker::ingest {
namespace {

using ::stoker::testing::StatusIs;
using ::stoker::testing::TempDir;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(BadDataTest, IsOneLineWhateverItNames) {
  const absl::Status status = BadData("a\nb.csv:1", "no column 'x'", "takes of y\r\nz");
  EXPECT_EQ(status.message(), "reading a\\nb.csv:1: no column 'x'; takes of y\\r\\nz");
  EXPECT_EQ(PartsOf(status).place, "a\nb.csv:1");
  EXPECT_EQ(PartsOf(status).reason, "no column 'x'");
  EXPECT_EQ(PartsOf(absl::NotFoundError("gone")).reason, "");
}

TEST(ParseValueTest, Numbers_AreReadExactly) {
  const auto value = [](absl::string_view text) {
    double parsed = -99;
    EXPECT_TRUE(ParseValue(text, &parsed)) << text;
    return parsed;
  };
  EXPECT_EQ(value("1.5"), 1.5);
  EXPECT_EQ(value("-0.1e-3"), -0.1e-3);
  EXPECT_EQ(value("+2"), 2);
  EXPECT_EQ(value("5.827000141143799"), 5.827000141143799);
  EXPECT_EQ(value("2.0000000e+00"), 2);
  EXPECT_TRUE(std::isnan(value("NaN")));
  EXPECT_TRUE(std::isnan(value("nan")));
  EXPECT_TRUE(std::isnan(value("?")));
  EXPECT_TRUE(std::isinf(value("-inf")));
  EXPECT_TRUE(std::isinf(value("1e999")));
}

TEST(ParseValueTest, OtherText_IsRefused) {
  for (const char* text :
       {"", "a", "1.5a", "1,5", "--1", "+-1", "+", "0x10", "1 2", "??", "nano", "1e", ".", "banana"}) {
    double value = -99;
    EXPECT_FALSE(ParseValue(text, &value)) << text;
    EXPECT_EQ(value, -99) << text;
  }
}

TEST(IsUtf8Test, OnlyWellFormedText_IsTaken) {
  EXPECT_TRUE(IsUtf8(""));
  EXPECT_TRUE(IsUtf8("na\xC3\xAFve \xE2\x82\xAC \xF0\x9F\x98\x80"));
  for (const char* bad : {"\xC3", "\xFF", "\xC0\xAF", "\xE0\x80\x80", "\xED\xA0\x80", "\xF4\x90\x80\x80", "a\x80"}) {
    EXPECT_FALSE(IsUtf8(bad)) << Quoted(bad);
  }
}

TEST(QuotedTest, HostileText_IsEscapedAndCut) {
  EXPECT_EQ(Quoted("a\nb"), "'a\\nb'");
  EXPECT_EQ(Quoted(std::string(1000, 'x')), "'" + std::string(40, 'x') + "...'");
}

class LineReaderTest : public ::testing::Test {
 protected:
  std::vector<std::string> Lines(const std::string& bytes, uint64_t begin, uint64_t end) {
    auto reader = LineReader::Open(dir_.Write("t", bytes), begin, end, nullptr);
    EXPECT_OK(reader);
    std::vector<std::string> lines;
    absl::string_view line;
    while (true) {
      const absl::StatusOr<bool> more = reader->Next(&line);
      EXPECT_OK(more);
      if (!more.ok() || !*more) return lines;
      lines.emplace_back(line);
    }
  }

  TempDir dir_;
};

TEST_F(LineReaderTest, LineEnds_AreTakenOff) {
  EXPECT_THAT(Lines("a\r\nb\n\nc", 0, 100), ElementsAre("a", "b", "", "c"));
  EXPECT_THAT(Lines("a\n", 0, 100), ElementsAre("a"));
  EXPECT_THAT(Lines("", 0, 100), ElementsAre());
}

TEST_F(LineReaderTest, ByteOrderMark_IsTakenOff) {
  EXPECT_THAT(Lines("\xEF\xBB\xBFx\ny", 0, 100), ElementsAre("x", "y"));
}

TEST_F(LineReaderTest, Ranges_PartitionTheLines) {
  for (const std::string mark : {"", "\xEF\xBB\xBF"}) {
    const std::string text = mark + "one\ntwo\n\nfour is long\nfive";
    for (uint64_t cut = 0; cut <= text.size(); ++cut) {
      std::vector<std::string> lines = Lines(text, 0, cut);
      for (const std::string& line : Lines(text, cut, text.size())) lines.push_back(line);
      EXPECT_THAT(lines, ElementsAre("one", "two", "", "four is long", "five")) << cut;
    }
  }
}

TEST_F(LineReaderTest, LineLongerThanTheBuffer_IsWhole) {
  const std::string longline(5 << 20, 'x');
  EXPECT_THAT(Lines("a\n" + longline + "\nb\n", 0, 100 << 20), ElementsAre("a", longline, "b"));
  EXPECT_THAT(Lines("a\n" + longline + "\nb\n", 10, 100 << 20), ElementsAre("b"));
}

TEST_F(LineReaderTest, Place_CountsFromTheStartOfTheFile) {
  const std::string path = dir_.Write("t", "one\ntwo\nthree\nfour\n");
  for (const uint64_t begin : {5, 8}) {  // in the middle of "two", and where "three" starts
    ASSERT_OK_AND_ASSIGN(LineReader reader, LineReader::Open(path, begin, 100, nullptr));
    absl::string_view line;
    ASSERT_OK(reader.Next(&line));
    EXPECT_EQ(line, "three");
    EXPECT_EQ(reader.line_offset(), 8u);
    EXPECT_THAT(reader.Bad("why", "do this"),
                StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("t:3: why; do this")));
  }
}

TEST_F(LineReaderTest, NotTextOfOneByteUnits_IsRefused) {
  EXPECT_THAT(LineReader::Open(dir_.Write("t", "\xFF\xFEx"), 0, 9, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("UTF-16")));
}

TEST_F(LineReaderTest, Directory_IsRefused) {
  EXPECT_THAT(LineReader::Open(dir_.path(), 0, 9, nullptr),
              StatusIs(absl::StatusCode::kInvalidArgument, HasSubstr("not a regular file")));
}

TEST_F(LineReaderTest, Progress_EndsAtTheRange) {
  const std::string path = dir_.Write("t", std::string(3 << 20, '\n'));
  uint64_t last = 0;
  ASSERT_OK_AND_ASSIGN(LineReader reader,
                       LineReader::Open(path, 1 << 20, 3 << 20, [&](uint64_t done) { last = done; }));
  absl::string_view line;
  while (*reader.Next(&line)) continue;
  EXPECT_EQ(last, uint64_t{2} << 20);
  EXPECT_EQ(reader.lines(), uint64_t{2} << 20);
}

}  // namespace
}  // namespace stoker::ingest
