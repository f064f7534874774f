// SPDX-License-Identifier: Apache-2.0
#include "client/src/loader_state.h"

#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "shared/base/status_macros.h"

namespace stoker::client {
namespace {

using nlohmann::json;

absl::Status Invalid(absl::string_view reason) {
  return absl::InvalidArgumentError(
      absl::StrCat("load state: ", reason, ": give the text that Loader::SaveState returned"));
}

absl::Status ReadField(const json& from, const char* key, std::string* out) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_string()) return Invalid(absl::StrCat("no text \"", key, "\""));
  *out = found->get<std::string>();
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> ReadNumber(const json& from, const char* key) {
  const auto found = from.find(key);
  if (found == from.end() || !found->is_number_unsigned()) return Invalid(absl::StrCat("no number \"", key, "\""));
  return found->get<uint64_t>();
}

absl::Status Differs(absl::string_view what, absl::string_view saved, absl::string_view now) {
  return absl::FailedPreconditionError(
      absl::StrCat("load state: ", what, " differs: the state has ", saved, ", this loader ", now));
}

}  // namespace

v1::Plan NormalPlan(v1::Plan plan) {
  if (plan.batch_size() == 0) plan.set_batch_size(64);
  if (plan.world() == 0) plan.set_world(1);
  if (plan.tail() == v1::TAIL_UNSPECIFIED) plan.set_tail(v1::KEEP);
  if (!plan.shuffle()) plan.set_seed(0);
  return plan;
}

std::string BudgetText(const v1::Plan& plan) {
  if (!plan.has_budget()) return "";
  const v1::Budget& budget = plan.budget();
  return absl::StrCat("graphs=", budget.graphs(), ",nodes=", budget.nodes(), ",edges=", budget.edges(),
                      ",triplets=", budget.triplets(), ",bytes=", budget.bytes());
}

std::string FormatState(const LoaderState& state) {
  json text = {{"version", kStateVersion},
               {"dataset", state.dataset},
               {"store", state.store},
               {"recipe", state.recipe_digest},
               {"plan", state.plan_digest},
               {"epoch", state.position.epoch()},
               {"step", state.position.step()},
               {"batch_size", state.plan.batch_size()},
               {"world", state.plan.world()},
               {"rank", state.plan.rank()},
               {"shuffle", state.plan.shuffle()},
               {"seed", state.plan.seed()},
               {"tail", v1::TailPolicy_Name(state.plan.tail())}};
  if (!state.budget.empty()) text["budget"] = state.budget;
  return text.dump();
}

absl::StatusOr<LoaderState> ParseState(absl::string_view text) {
  const json parsed = json::parse(text.begin(), text.end(), nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) return Invalid("not a JSON object");
  STOKER_ASSIGN_OR_RETURN(const uint64_t version, ReadNumber(parsed, "version"));
  if (version != kStateVersion) return Invalid(absl::StrCat("version ", version, ", this is ", kStateVersion));
  LoaderState state;
  STOKER_RETURN_IF_ERROR(ReadField(parsed, "dataset", &state.dataset));
  STOKER_RETURN_IF_ERROR(ReadField(parsed, "store", &state.store));
  STOKER_RETURN_IF_ERROR(ReadField(parsed, "recipe", &state.recipe_digest));
  STOKER_RETURN_IF_ERROR(ReadField(parsed, "plan", &state.plan_digest));
  STOKER_ASSIGN_OR_RETURN(const uint64_t epoch, ReadNumber(parsed, "epoch"));
  STOKER_ASSIGN_OR_RETURN(const uint64_t step, ReadNumber(parsed, "step"));
  STOKER_ASSIGN_OR_RETURN(const uint64_t batch_size, ReadNumber(parsed, "batch_size"));
  STOKER_ASSIGN_OR_RETURN(const uint64_t world, ReadNumber(parsed, "world"));
  STOKER_ASSIGN_OR_RETURN(const uint64_t rank, ReadNumber(parsed, "rank"));
  STOKER_ASSIGN_OR_RETURN(const uint64_t seed, ReadNumber(parsed, "seed"));
  const auto shuffle = parsed.find("shuffle");
  if (shuffle == parsed.end() || !shuffle->is_boolean()) return Invalid("no truth value \"shuffle\"");
  std::string tail;
  STOKER_RETURN_IF_ERROR(ReadField(parsed, "tail", &tail));
  v1::TailPolicy policy;
  if (!v1::TailPolicy_Parse(tail, &policy)) return Invalid(absl::StrCat("unknown tail \"", tail, "\""));
  if (parsed.contains("budget")) STOKER_RETURN_IF_ERROR(ReadField(parsed, "budget", &state.budget));
  if (batch_size > UINT32_MAX || world > UINT32_MAX || rank > UINT32_MAX) return Invalid("a number out of range");
  state.position.set_epoch(epoch);
  state.position.set_step(step);
  state.plan.set_batch_size(static_cast<uint32_t>(batch_size));
  state.plan.set_world(static_cast<uint32_t>(world));
  state.plan.set_rank(static_cast<uint32_t>(rank));
  state.plan.set_shuffle(shuffle->get<bool>());
  state.plan.set_seed(seed);
  state.plan.set_tail(policy);
  return state;
}

absl::Status CheckSameBatches(const LoaderState& saved, const LoaderState& now) {
  if (saved.store != now.store) {
    return Differs("the data set", absl::StrCat(saved.dataset, " (store ", saved.store, ")"),
                   absl::StrCat(now.dataset, " (store ", now.store, ")"));
  }
  if (saved.recipe_digest != now.recipe_digest) return Differs("the recipe", saved.recipe_digest, now.recipe_digest);
  if (saved.plan_digest == now.plan_digest) return absl::OkStatus();
  const v1::Plan& a = saved.plan;
  const v1::Plan& b = now.plan;
  if (a.shuffle() != b.shuffle()) return Differs("shuffle", a.shuffle() ? "on" : "off", b.shuffle() ? "on" : "off");
  if (a.seed() != b.seed()) return Differs("the seed", absl::StrCat(a.seed()), absl::StrCat(b.seed()));
  if (a.tail() != b.tail()) return Differs("tail", v1::TailPolicy_Name(a.tail()), v1::TailPolicy_Name(b.tail()));
  if (saved.budget != now.budget) return Differs("the budget", saved.budget, now.budget);
  if (!now.budget.empty() && a.world() != b.world()) {
    return Differs("the world", absl::StrCat(a.world()), absl::StrCat(b.world()));  // each cuts the epoch differently
  }
  if (uint64_t{a.batch_size()} * a.world() != uint64_t{b.batch_size()} * b.world()) {
    return Differs("batch size times world", absl::StrCat(a.batch_size(), " x ", a.world()),
                   absl::StrCat(b.batch_size(), " x ", b.world()));
  }
  if (a.world() == b.world() && a.rank() == b.rank()) return Differs("the plan", saved.plan_digest, now.plan_digest);
  return absl::OkStatus();
}

}  // namespace stoker::client
