// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "absl/status/statusor.h"
#include "server/plan/budgets.h"
#include "server/plan/cost_table.h"
#include "stoker/v1/plan.pb.h"

namespace stoker::plan {

// The most that a batch can have of each cost in any epoch and on any rank, whichever way the samples are shuffled;
// bytes are those of its extent. For memory that is set aside before the first batch is there.
//
// No batch has more, and a batch near it can be: for each limit of the plan it is the optimum of the fractional
// knapsack (Dantzig, 1957), samples in order of what they add for what they take of the limit, the last one in part.
// With more than one limit it is the least of these.
//
// REQUIRES: a plan of CompletePlan; a table of samples that BatchPlan::Create takes. Errors are those of
// Budgets::Create. Reads the table twice; takes memory for the samples of one batch.
absl::StatusOr<Costs> LargestBatch(const v1::Plan& plan, const CostTable& table);

}  // namespace stoker::plan
