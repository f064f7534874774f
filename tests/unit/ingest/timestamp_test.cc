// SPDX-License-Identifier: Apache-2.0
#include "server/ingest/timestamp.h"

#include <gtest/gtest.h>

namespace stoker::ingest {
namespace {

double Seconds(absl::string_view text) {
  double seconds = -1;
  EXPECT_TRUE(ParseTimestamp(text, &seconds)) << text;
  return seconds;
}

TEST(ParseTimestampTest, DateTimes_AreSecondsSinceTheEpoch) {
  EXPECT_EQ(Seconds("1970-01-02"), 86400);
  EXPECT_EQ(Seconds("2016-07-01 00:00:00"), 1467331200);
  EXPECT_EQ(Seconds("2016-07-01T01:02"), 1467331200 + 3720);
  EXPECT_EQ(Seconds(" 2016/07/01 00:00:01 "), 1467331201);
  EXPECT_EQ(Seconds("1969-12-31 23:59:59"), -1);
  EXPECT_NEAR(Seconds("1970-01-01 00:00:00.250"), 0.25, 1e-12);
}

TEST(ParseTimestampTest, Zones_AreTakenOff) {
  EXPECT_EQ(Seconds("1970-01-01T01:30:00Z"), 5400);
  EXPECT_EQ(Seconds("1970-01-01T01:30:00+01:30"), 0);
  EXPECT_EQ(Seconds("1970-01-01 01:30:00 -0100"), 9000);
  EXPECT_EQ(Seconds("1970-01-01 01:30:00+01"), 1800);
}

TEST(ParseTimestampTest, Numbers_AreSeconds) { EXPECT_EQ(Seconds("1467331200.5"), 1467331200.5); }

TEST(ParseTimestampTest, OtherText_IsRefused) {
  for (const char* text : {"", "nan", "?", "inf", "yesterday", "2016-02-30", "2016-13-01", "2016-07-01 24:00:00",
                           "2016-07-01 00:60", "2016-07-01 00:00:00 x", "2016-07/01", "1/2/2016", "2016-7-1",
                           "12:00:00", "2016-07-01 00:00:00.", "2016-07-01X00:00"}) {
    double seconds = -1;
    EXPECT_FALSE(ParseTimestamp(text, &seconds)) << text;
    EXPECT_EQ(seconds, -1) << text;
  }
}

}  // namespace
}  // namespace stoker::ingest
