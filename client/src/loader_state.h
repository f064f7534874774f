// SPDX-License-Identifier: Apache-2.0
// The state that a Loader saves: a position, and what it is a position in.
#pragma once

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::client {

inline constexpr int kStateVersion = 1;

struct LoaderState {
  std::string dataset;  // a name only: data sets are compared by store
  std::string store;
  std::string recipe_digest;
  std::string plan_digest;
  v1::Plan plan;  // with defaults filled in
  v1::Position position;
  std::string budget = {};  // BudgetText of the plan
};

// The plan with its defaults written out, so that equal plans compare equal.
v1::Plan NormalPlan(v1::Plan plan);

// The plan's budget in one word; empty without one.
std::string BudgetText(const v1::Plan& plan);

std::string FormatState(const LoaderState& state);

// InvalidArgument when it is not a state, or one of another version.
absl::StatusOr<LoaderState> ParseState(absl::string_view json);

// FailedPrecondition naming what differs when `saved` is no position in the batches of `now`. Without a budget its
// world may be another one when batch size times world is the same: then its steps hold the same samples.
absl::Status CheckSameBatches(const LoaderState& saved, const LoaderState& now);

}  // namespace stoker::client
