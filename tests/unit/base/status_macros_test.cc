// SPDX-License-Identifier: Apache-2.0
#include "shared/base/status_macros.h"

#include <gtest/gtest.h>

#include <memory>

#include "tests/support/status_matchers.h"

namespace stoker {
namespace {

using ::stoker::testing::IsOk;
using ::stoker::testing::IsOkAndHolds;
using ::stoker::testing::StatusIs;

absl::Status ReturnsEarly(const absl::Status& status, int* reached) {
  STOKER_RETURN_IF_ERROR(status);
  ++*reached;
  return absl::OkStatus();
}

absl::StatusOr<int> Unwraps(absl::StatusOr<std::unique_ptr<int>> a, absl::StatusOr<int> b) {
  STOKER_ASSIGN_OR_RETURN(const std::unique_ptr<int> first, std::move(a));
  STOKER_ASSIGN_OR_RETURN(int second, b);
  second += *first;
  return second;
}

TEST(ReturnIfError, Error_ReturnsItAndEvaluatesOnce) {
  int reached = 0;
  EXPECT_THAT(ReturnsEarly(absl::AbortedError("gone"), &reached), StatusIs(absl::StatusCode::kAborted, "gone"));
  EXPECT_EQ(reached, 0);
  EXPECT_THAT(ReturnsEarly(absl::OkStatus(), &reached), IsOk());
  EXPECT_EQ(reached, 1);
}

TEST(AssignOrReturn, MoveOnlyValue_IsMovedOut) {
  EXPECT_THAT(Unwraps(std::make_unique<int>(3), 4), IsOkAndHolds(7));
  EXPECT_THAT(Unwraps(absl::NotFoundError("a"), 4), StatusIs(absl::StatusCode::kNotFound, "a"));
  EXPECT_THAT(Unwraps(std::make_unique<int>(3), absl::DataLossError("b")), StatusIs(absl::StatusCode::kDataLoss, "b"));
}

TEST(Annotate, Error_KeepsItsCodeBehindTheContext) {
  EXPECT_THAT(Annotate(absl::NotFoundError("no file"), "segment 3"),
              StatusIs(absl::StatusCode::kNotFound, "segment 3: no file"));
}

TEST(Annotate, Ok_StaysOk) { EXPECT_THAT(Annotate(absl::OkStatus(), "segment 3"), IsOk()); }

}  // namespace
}  // namespace stoker
