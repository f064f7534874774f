// SPDX-License-Identifier: Apache-2.0
#include <sys/stat.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "client/ctl/command.h"
#include "client/ctl/stream_options.h"
#include "shared/base/option_checks.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/store/safetensors.h"

namespace stoker::ctl {
namespace {

struct ReadArguments {
  std::string name;
  RecipeArguments recipe;
  PlanArguments plan;
  ReadingArguments reading;
  uint64_t epochs = 1;
  uint64_t batches = 0;  // 0: all
  std::string out;
};

struct Totals {
  uint64_t batches = 0;
  uint64_t samples = 0;
  uint64_t bytes = 0;
  double seconds = 0;
  std::string next;  // position after the last batch that was read and written
};

// SIGINT, SIGTERM or SIGHUP: the batch at hand is finished, and what was read is told.
volatile std::sig_atomic_t interrupted = 0;

void HandleInterrupts() {
  struct sigaction action = {};
  action.sa_handler = [](int signal) { interrupted = signal; };
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

// As if there had been no handler, so that who started us sees it.
void EndBySignal(int signal) {
  ::signal(signal, SIG_DFL);
  ::raise(signal);
}

absl::StatusOr<LoaderOptions> MakeOptions(const ReadArguments& arguments) {
  LoaderOptions options;
  options.dataset = arguments.name;
  STOKER_ASSIGN_OR_RETURN(options.recipe, MakeRecipe(arguments.recipe));
  STOKER_ASSIGN_OR_RETURN(options.plan, MakePlan(arguments.plan));
  STOKER_ASSIGN_OR_RETURN(options.start, ParsePosition(arguments.plan.from));
  options.epochs = arguments.epochs;
  options.prefetch = arguments.reading.prefetch;
  options.transport = arguments.reading.transport;
  return options;
}

std::string Next(const Loader& loader) {
  return absl::StrCat(loader.position().epoch(), ":", loader.position().step());
}

absl::Status WriteBatch(const Batch& batch, const Loader& loader, const ReadArguments& arguments) {
  std::vector<tensor::TensorSpec> specs;
  for (const RawTensor& tensor : batch.tensors()) {
    specs.push_back({std::string(tensor.name), tensor.dtype, {tensor.shape.begin(), tensor.shape.end()}});
  }
  const std::map<std::string, std::string> metadata = {{"dataset", arguments.name},
                                                       {"store", loader.info().store()},
                                                       {"epoch", absl::StrCat(batch.epoch())},
                                                       {"step", absl::StrCat(batch.step())},
                                                       {"plan", loader.info().plan_digest()},
                                                       {"recipe", loader.info().recipe_digest()}};
  const std::string path =
      absl::StrCat(arguments.out, "/epoch-", batch.epoch(), "-step-", batch.step(), ".safetensors");
  STOKER_ASSIGN_OR_RETURN(store::SafetensorsWriter writer, store::SafetensorsWriter::Create(path, metadata, specs));
  for (const RawTensor& tensor : batch.tensors()) STOKER_RETURN_IF_ERROR(writer.AppendBytes(tensor.bytes));
  STOKER_RETURN_IF_ERROR(writer.Finish().status());
  return Annotate(batch.Check(), path);
}

absl::Status MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  return error ? ErrnoStatus(error.value(), "make directory", path) : absl::OkStatus();
}

// About how much there is to read, for progress; 0 when that has no end.
uint64_t ExpectedBytes(const Loader& loader, const ReadArguments& arguments) {
  if (arguments.batches > 0) return arguments.batches * loader.info().batch_bytes();
  const uint64_t batches = arguments.epochs * loader.steps_per_epoch();
  return (batches - std::min(batches, loader.position().step())) * loader.info().batch_bytes();
}

// Reads until the end or until `batches`; `totals` says how far it came, also after an error.
absl::Status ReadAll(Loader& loader, const ReadArguments& arguments, const Output& output, absl::Time start,
                     Totals* totals) {
  Progress progress(output, absl::StrCat("read ", arguments.name));
  const uint64_t expected = ExpectedBytes(loader, arguments);
  constexpr absl::Duration kSlice = absl::Milliseconds(100);  // so soon an interrupt is seen
  totals->next = Next(loader);
  while ((arguments.batches == 0 || totals->batches < arguments.batches) && interrupted == 0) {
    absl::StatusOr<std::optional<Batch>> next = loader.Next(kSlice);
    if (absl::IsDeadlineExceeded(next.status())) continue;
    totals->seconds = absl::ToDoubleSeconds(absl::Now() - start);
    if (absl::IsOutOfRange(next.status())) break;  // all epochs are read
    STOKER_RETURN_IF_ERROR(next.status());
    if (!next->has_value()) {
      totals->next = Next(loader);
      continue;
    }
    const Batch& batch = **next;
    if (!arguments.out.empty()) STOKER_RETURN_IF_ERROR(WriteBatch(batch, loader, arguments));
    totals->next = Next(loader);
    ++totals->batches;
    totals->samples += batch.samples();
    for (const RawTensor& tensor : batch.tensors()) totals->bytes += tensor.bytes.size();
    progress.Update(totals->bytes, expected, absl::StrCat("at ", totals->next), absl::Now());
  }
  return absl::OkStatus();
}

void PrintTotals(const Output& output, const Totals& totals, const v1::Plan& plan, const Loader& loader) {
  const uint64_t oversize = loader.info().oversize_samples();
  if (output.json) {
    nlohmann::ordered_json json = {{"batches", totals.batches},       {"samples", totals.samples},
                                   {"bytes", totals.bytes},           {"seconds", totals.seconds},
                                   {"transport", loader.transport()}, {"next", totals.next}};
    if (plan.has_budget()) json["oversize_samples"] = oversize;
    output.out << json.dump() << std::endl;
    return;
  }
  if (output.quiet) return;
  const double seconds = std::max(totals.seconds, 1e-9);
  std::vector<std::pair<std::string, std::string>> fields = {
      {"batches", FormatCount(totals.batches)},
      {"samples", FormatCount(totals.samples)},
      {"bytes", FormatSize(totals.bytes)},
      {"time", FormatSeconds(totals.seconds)},
      {"rate", absl::StrFormat("%s, %.1f batches/s, %.0f samples/s", FormatRate(totals.bytes / seconds),
                               totals.batches / seconds, totals.samples / seconds)},
      {"transport", loader.transport()},
      {"next", totals.next}};
  if (oversize > 0) {
    fields.emplace_back("over budget",
                        absl::StrCat(FormatCount(oversize), " of ", FormatCount(loader.info().samples()), " samples, ",
                                     plan.oversize() == v1::OVERSIZE_SKIP ? "left out" : "alone in a batch each"));
  }
  PrintFields(output.out, fields);
  output.out << std::flush;
}

ExitCode RunRead(const Context& context, const ReadArguments& arguments) {
  const std::string what = absl::StrCat("read ", arguments.name);
  const absl::StatusOr<LoaderOptions> options = MakeOptions(arguments);
  if (!options.ok()) return Fail(context.output, what, options.status());
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, what, client.status());
  if (!arguments.out.empty()) {
    if (const absl::Status status = MakeDirectory(arguments.out); !status.ok()) {
      return Fail(context.output, what, status);
    }
  }
  const absl::Time start = absl::Now();
  absl::StatusOr<Loader> loader = client->Open(*options);
  if (!loader.ok()) return Fail(context.output, what, loader.status());
  Totals totals;
  HandleInterrupts();
  const absl::Status status = ReadAll(*loader, arguments, context.output, start, &totals);
  if (const std::string notice = loader->notice(); !notice.empty() && !context.output.quiet) {
    context.output.err << "stokerctl: " << what << ": " << notice << std::endl;
  }
  if (!status.ok()) return Fail(context.output, absl::StrCat(what, " at ", totals.next), status);
  PrintTotals(context.output, totals, options->plan, *loader);
  if (interrupted != 0) EndBySignal(interrupted);
  return kDone;
}

}  // namespace

void AddRead(CLI::App& app, Context& context) {
  CLI::App* command =
      AddCommand(app, "read", "Reads the batches of a data set, and writes them to files if wanted",
                 "stokerctl read walks --fields gasf,gadf --dtype u8 --batch-size 32 --shuffle --seed 7 --epochs 2\n"
                 "  stokerctl read walks --from 1:12 --batches 3 --out /tmp/batches");
  auto arguments = std::make_shared<ReadArguments>();
  command->add_option("name", arguments->name, "Name of the data set")->required();
  AddRecipeOptions(command, &arguments->recipe);
  AddPlanOptions(command, &arguments->plan);
  command->add_option("--epochs", arguments->epochs, "Epochs from --from's on; 0: without end (default: 1)")
      ->check(AtLeastZero());
  command->add_option("--batches", arguments->batches, "Stop after so many batches (default: at the end)")
      ->check(AtLeastZero());
  AddReadingOptions(command, &arguments->reading);
  command->add_option("--out", arguments->out, "Folder for epoch-<e>-step-<s>.safetensors, one a batch");
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunRead(context, *arguments); }; });
}

}  // namespace stoker::ctl
