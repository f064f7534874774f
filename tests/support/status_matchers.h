// SPDX-License-Identifier: Apache-2.0
// GoogleMock matchers for absl::Status and absl::StatusOr, which this version of abseil does not ship.
//
//   EXPECT_THAT(Segment::Create(options), StatusIs(absl::StatusCode::kPermissionDenied, HasSubstr("/dev/shm")));
//   EXPECT_THAT(ParseSize("1KiB"), IsOkAndHolds(1024));
//   ASSERT_OK_AND_ASSIGN(Segment segment, Segment::Create(options));
//
// There is no matcher for "not ok": name the code.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"

namespace stoker::testing {

inline const absl::Status& GetStatus(const absl::Status& status) { return status; }
template <typename T>
const absl::Status& GetStatus(const absl::StatusOr<T>& value) {
  return value.status();
}

MATCHER_P2(StatusIs, code, message,
           absl::StrCat(negation ? "is not " : "is ", absl::StatusCodeToString(code), " with a message that ",
                        ::testing::DescribeMatcher<std::string>(message))) {
  const absl::Status& status = GetStatus(arg);
  *result_listener << "which is " << status.ToString();
  return status.code() == code &&
         ::testing::ExplainMatchResult(message, std::string(status.message()), result_listener);
}
template <typename Code>
auto StatusIs(Code code) {
  return StatusIs(code, ::testing::_);
}

MATCHER(IsOk, negation ? "is an error" : "is OK") {
  *result_listener << "which is " << GetStatus(arg).ToString();
  return GetStatus(arg).ok();
}

MATCHER_P(IsOkAndHolds, value, negation ? "is an error or holds something else" : "is OK and holds what is expected") {
  if (!arg.ok()) {
    *result_listener << "which is " << arg.status().ToString();
    return false;
  }
  using Value = typename std::decay_t<decltype(arg)>::value_type;
  return ::testing::ExplainMatchResult(::testing::SafeMatcherCast<const Value&>(value), *arg, result_listener);
}

}  // namespace stoker::testing

#define EXPECT_OK(expr) EXPECT_THAT(expr, ::stoker::testing::IsOk())
#define ASSERT_OK(expr) ASSERT_THAT(expr, ::stoker::testing::IsOk())

#define STOKER_TEST_CONCAT_INNER_(a, b) a##b
#define STOKER_TEST_CONCAT_(a, b) STOKER_TEST_CONCAT_INNER_(a, b)
#define ASSERT_OK_AND_ASSIGN(lhs, expr) ASSERT_OK_AND_ASSIGN_(STOKER_TEST_CONCAT_(status_or_, __LINE__), lhs, expr)
#define ASSERT_OK_AND_ASSIGN_(tmp, lhs, expr) \
  auto tmp = (expr);                          \
  ASSERT_OK(tmp);                             \
  lhs = std::move(tmp).value()
