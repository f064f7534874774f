// SPDX-License-Identifier: Apache-2.0
#include <signal.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "client/ctl/bench_measure.h"
#include "client/ctl/bench_process.h"
#include "client/ctl/bench_scratch.h"
#include "client/ctl/command.h"
#include "shared/base/posix.h"
#include "shared/base/size.h"
#include "shared/base/status_macros.h"
#include "shared/base/version.h"
#include "stoker/embedded_daemon.h"

namespace stoker::ctl {
namespace {

using nlohmann::ordered_json;

constexpr absl::Duration kBenchmarkPatience = absl::Minutes(5);
constexpr double kMicrosecondsLimit = 20;

struct BenchArguments {
  BenchSettings settings;
  bool quick = false;
  bool full = false;
  std::string daemon;
};

// Shows rows as they come, or keeps them for the JSON document.
class Report {
 public:
  explicit Report(const Output& output) : output_(output) {}

  void Head(const ordered_json& machine, const ordered_json& settings) {
    document_["machine"] = machine;
    document_["settings"] = settings;
    document_["rows"] = ordered_json::array();
    if (output_.json) return;
    for (const ordered_json* part : {&machine, &settings}) {
      for (const auto& [name, value] : part->items()) output_.out << name << ": " << Text(value) << "\n";
    }
    output_.out << absl::StrFormat("\n%-28s %12s %-6s %-25s %s\n", "what", "median", "unit", "least - greatest",
                                   "ratio");
  }

  void Add(const ordered_json& row) {
    document_["rows"].push_back(row);
    if (output_.json) return;
    std::string name = row.value("name", "?");
    if (row.value("threads", 1) > 1) absl::StrAppend(&name, " x ", row.value("threads", 1));
    std::string spread;
    if (row.contains("spread") && row["spread"][0] != row["spread"][1]) {
      spread = absl::StrFormat("%.4g - %.4g", row["spread"][0].get<double>(), row["spread"][1].get<double>());
    }
    std::string ratio;
    if (row.contains("ratio_to_limit")) ratio = absl::StrFormat("%.2f of the limit", row.value("ratio_to_limit", 0.0));
    if (row.contains("ratio")) {
      ratio = absl::StrFormat("%.2f of %s", row.value("ratio", 0.0), row.value("ratio_to", std::string()));
    }
    const std::string note = row.value("note", "");
    if (!note.empty()) absl::StrAppend(&ratio, ratio.empty() ? "" : ", ", note);
    output_.out << absl::StripTrailingAsciiWhitespace(absl::StrFormat("%-28s %12.4g %-6s %-25s %s", name,
                                                                      row.value("value", 0.0), row.value("unit", ""),
                                                                      spread, ratio))
                << std::endl;
  }

  void Add(const BenchRow& row) {
    ordered_json json = {{"name", row.name},
                         {"value", row.value},
                         {"unit", row.unit},
                         {"median_of", row.median_of},
                         {"spread", {row.low, row.high}}};
    if (row.ratio.has_value()) {
      json["ratio"] = *row.ratio;
      json["ratio_to"] = row.ratio_to;
    }
    if (!row.note.empty()) json["note"] = row.note;
    Add(json);
  }

  // One document, a row a line.
  void Finish() {
    if (!output_.json) return;
    output_.out << "{\"machine\": " << document_["machine"].dump()
                << ",\n \"settings\": " << document_["settings"].dump() << ",\n \"rows\": [";
    for (size_t i = 0; i < document_["rows"].size(); ++i) {
      output_.out << (i == 0 ? "\n  " : ",\n  ") << document_["rows"][i].dump();
    }
    output_.out << "\n ]}" << std::endl;
  }

 private:
  static std::string Text(const ordered_json& value) {
    return value.is_string() ? value.get<std::string>() : value.dump();
  }

  const Output& output_;
  ordered_json document_;
};

std::string FileLine(const std::string& path, absl::string_view key) {
  const absl::StatusOr<std::string> text = ReadFile(path, 4 << 20);
  if (!text.ok()) return "";
  for (const absl::string_view line : absl::StrSplit(*text, '\n')) {
    if (!absl::StartsWith(line, key)) continue;
    return std::string(absl::StripAsciiWhitespace(line.substr(line.find(':') + 1)));
  }
  return "";
}

ordered_json Machine() {
  utsname name = {};
  ::uname(&name);
  const auto memory = static_cast<uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<uint64_t>(::getpagesize());
  return {{"processor", FileLine("/proc/cpuinfo", "model name")},
          {"processors", std::thread::hardware_concurrency()},
          {"memory", FormatSize(memory)},
          {"system", absl::StrCat(name.sysname, " ", name.release, " ", name.machine)},
          {"build", absl::StrCat("stoker ", kVersion, ", ", STOKER_BUILD_TYPE, ", gcc-compatible ", __VERSION__)},
          {"commit", STOKER_COMMIT}};
}

ordered_json Describe(const BenchSettings& settings) {
  ordered_json json = {{"samples", settings.samples},       {"shape", "26 channels x 96 points, f32"},
                       {"batch_size", settings.batch_size}, {"arena", settings.arena_bytes},
                       {"workers", settings.workers},       {"repeats", settings.repeats}};
  if (!settings.data.empty()) json["shape"] = absl::StrCat("of ", settings.data[0]);
  return json;
}

std::string Beside(const std::string& program) {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error).parent_path() / program;
  return ::access(path.c_str(), X_OK) == 0 ? path.string() : program;
}

// The rows of `stoker-worker --benchmark`; returns the streaming-store limit of `threads` processors, in GB/s.
absl::StatusOr<double> RunWorkerBenchmark(const BenchArguments& arguments, int threads, Report* report) {
  std::vector<std::string> command = {Beside("stoker-worker"),
                                      "--benchmark",
                                      "--mib",
                                      absl::StrCat(arguments.settings.benchmark_mib),
                                      "--threads",
                                      absl::StrCat(threads),
                                      "--repeats",
                                      absl::StrCat(arguments.settings.repeats)};
  if (arguments.full) command.push_back("--all-paths");
  STOKER_ASSIGN_OR_RETURN(LineProcess process, LineProcess::Start(command));
  double limit = 0;
  while (true) {
    const absl::StatusOr<std::string> line = process.ReadLine(kBenchmarkPatience);
    if (absl::IsOutOfRange(line.status())) break;
    STOKER_RETURN_IF_ERROR(line.status());
    const ordered_json row = ordered_json::parse(*line, nullptr, /*allow_exceptions=*/false);
    if (!row.is_object()) return absl::InternalError(absl::StrCat("stoker-worker --benchmark says ", *line));
    report->Add(row);
    if (row.value("name", "") == "streaming_stores" && row.value("threads", 1) == threads) {
      limit = row.value("value", 0.0);
    }
  }
  STOKER_RETURN_IF_ERROR(process.Wait());
  return limit;
}

absl::StatusOr<EmbeddedDaemon> StartDaemon(const BenchArguments& arguments, const std::string& dir) {
  EmbeddedDaemonOptions options;
  options.program = arguments.daemon;
  options.arena_bytes = arguments.settings.arena_bytes;
  options.workers = arguments.settings.workers;
  options.roots = {dir};
  for (const std::string& path : arguments.settings.data) {
    options.roots.push_back(std::filesystem::path(path).parent_path().string());
  }
  return EmbeddedDaemon::Start(options);
}

absl::Status Ingest(const Client& client, const BenchSettings& settings, const std::string& dir) {
  v1::IngestRequest request;
  request.set_name("bench");
  for (const std::string& path : settings.data) request.add_source(path);
  if (settings.data.empty()) {
    request.add_source(dir + "/walks.npy");
    STOKER_RETURN_IF_ERROR(WriteRandomWalks(request.source(0), settings.samples));
  }
  return client.Ingest(request).status();
}

absl::Status MeasureThroughput(const Client& client, const BenchArguments& arguments, double limit, Report* report) {
  const BenchSettings& settings = arguments.settings;
  LoaderOptions options;
  options.dataset = "bench";
  options.recipe.mutable_gaf();
  options.plan.set_batch_size(settings.batch_size);
  uint64_t epoch = 0;
  const auto add = [&](absl::StatusOr<BenchRow> row) -> absl::Status {
    STOKER_RETURN_IF_ERROR(row.status());
    if (limit > 0 && !row->ratio.has_value()) {
      row->ratio = row->value / limit;
      row->ratio_to = "the streaming-store limit of as many processors";
    }
    report->Add(*row);
    return absl::OkStatus();
  };
  const auto add_clients = [&](int count, bool touch) {
    return add(MeasureClients(client, options, count, touch, settings.repeats, &epoch));
  };
  STOKER_RETURN_IF_ERROR(add(MeasureEpochs(client, options, "epoch_f32", false, settings.repeats, &epoch)));
  STOKER_RETURN_IF_ERROR(add(MeasureEpochs(client, options, "epoch_f32_touched", true, settings.repeats, &epoch)));
  for (const int count : settings.clients) STOKER_RETURN_IF_ERROR(add_clients(count, /*touch=*/false));
  for (const int count : settings.clients) STOKER_RETURN_IF_ERROR(add_clients(count, /*touch=*/true));
  LoaderOptions small = options;
  small.recipe.mutable_gaf()->set_dtype(v1::DTYPE_U8);
  return add(MeasureEpochs(client, small, "epoch_u8", false, settings.repeats, &epoch));
}

absl::Status MeasureLatency(const Client& client, const BenchSettings& settings, Report* report) {
  LoaderOptions options;
  options.dataset = "bench";
  options.recipe.mutable_gaf()->set_dtype(v1::DTYPE_U8);
  options.recipe.mutable_gaf()->set_image_size(24);
  options.plan.set_batch_size(8);
  STOKER_ASSIGN_OR_RETURN(std::vector<BenchRow> rows, MeasureNext(client, options, settings.latency_rounds));
  rows[0].note =
      absl::StrFormat("%s %g us", rows[0].value < kMicrosecondsLimit ? "below" : "ABOVE", kMicrosecondsLimit);
  for (const BenchRow& row : rows) report->Add(row);
  STOKER_ASSIGN_OR_RETURN(rows, MeasureCold(client, options, settings.latency_rounds));
  for (const BenchRow& row : rows) report->Add(row);
  return absl::OkStatus();
}

absl::Status Bench(const BenchArguments& arguments, Report* report) {
  STOKER_ASSIGN_OR_RETURN(const std::unique_ptr<BenchScratch> dir, BenchScratch::Make());
  report->Head(Machine(), Describe(arguments.settings));
  // Asked first, because the limit is taken for as many processors as the daemon has workers.
  STOKER_ASSIGN_OR_RETURN(EmbeddedDaemon daemon, StartDaemon(arguments, dir->path()));
  STOKER_ASSIGN_OR_RETURN(const Client client, Client::Connect({.address = daemon.address()}));
  STOKER_ASSIGN_OR_RETURN(const v1::StatusReply status, client.GetStatus());
  int workers = 0;
  for (const v1::StatusReply::Worker& worker : status.workers()) workers += worker.role() == "ingest" ? 0 : 1;
  STOKER_ASSIGN_OR_RETURN(const double limit, RunWorkerBenchmark(arguments, std::max(workers, 1), report));
  STOKER_RETURN_IF_ERROR(Ingest(client, arguments.settings, dir->path()));
  STOKER_RETURN_IF_ERROR(MeasureThroughput(client, arguments, limit, report));
  STOKER_RETURN_IF_ERROR(MeasureLatency(client, arguments.settings, report));
  STOKER_ASSIGN_OR_RETURN(BenchRow memory, MeasureMemory(daemon.pid()));
  memory.note = "resident, without shared memory";
  report->Add(memory);
  return absl::OkStatus();
}

ExitCode RunBench(const Context& context, BenchArguments arguments) {
  ::signal(SIGPIPE, SIG_IGN);  // a client process that dies is an error here, not an end
  BenchSettings& settings = arguments.settings;
  if (arguments.quick) {
    settings.samples = 64;
    settings.batch_size = 8;
    settings.arena_bytes = "128MiB";
    settings.repeats = 2;
    settings.clients = {2};
    settings.latency_rounds = 50;
    settings.benchmark_mib = 32;
  }
  for (std::string& path : settings.data) path = std::filesystem::absolute(path).lexically_normal().string();
  Report report(context.output);
  const absl::Status status = Bench(arguments, &report);
  if (!status.ok()) return Fail(context.output, "bench", status);
  report.Finish();
  return kDone;
}

}  // namespace

void AddBench(CLI::App& app, Context& context) {
  CLI::App* command =
      AddCommand(app, "bench", "Measures this host with a daemon of its own: memory, transforms, epochs, Next()",
                 "stokerctl bench --json > bench.json");
  auto arguments = std::make_shared<BenchArguments>();
  BenchSettings& settings = arguments->settings;
  command->add_flag("--quick", arguments->quick, "Seconds instead of minutes; the figures say little");
  command->add_flag("--full", arguments->full, "Also every instruction set that the processor has");
  command->add_option("--data", settings.data, "Your own .ts, .tsv or .npy files instead of random walks");
  command->add_option("--samples", settings.samples, "Of the random walks")->check(CLI::Range(1, 1000000));
  command->add_option("--batch-size", settings.batch_size, "Samples a batch")->check(CLI::Range(1, 4096));
  command->add_option("--arena-bytes", settings.arena_bytes, "Of the daemon")->capture_default_str();
  command->add_option("--workers", settings.workers, "Of the daemon")->capture_default_str();
  command->add_option("--repeats", settings.repeats, "Epochs a row")->check(CLI::Range(1, 1000));
  command->add_option("--daemon", arguments->daemon, "Path of stokerd (default: beside stokerctl, else in PATH)");
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunBench(context, *arguments); }; });
}

}  // namespace stoker::ctl
