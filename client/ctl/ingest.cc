// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <map>
#include <memory>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/ctl/command.h"
#include "shared/base/size.h"

namespace stoker::ctl {
namespace {

using Options = v1::IngestOptions;

const std::map<std::string, v1::SourceFormat> kFormats = {
    {"auto", v1::FORMAT_AUTO}, {"ts", v1::TS}, {"ucr", v1::UCR}, {"npy", v1::NPY}, {"csv", v1::CSV}};
const std::map<std::string, Options::ArrayLayout> kLayouts = {{"nct", Options::NCT}, {"ntc", Options::NTC}};
const std::map<std::string, Options::Missing> kMissing = {
    {"error", Options::MISSING_ERROR}, {"linear", Options::MISSING_LINEAR}, {"zero", Options::MISSING_ZERO}};
const std::map<std::string, Options::Unequal> kUnequal = {{"error", Options::UNEQUAL_ERROR},
                                                          {"paa", Options::UNEQUAL_PAA},
                                                          {"crop", Options::UNEQUAL_CROP},
                                                          {"pad", Options::UNEQUAL_PAD}};
const std::map<std::string, Options::Target> kTargets = {
    {"none", Options::TARGET_NONE}, {"class", Options::TARGET_CLASS}, {"value", Options::TARGET_VALUE}};

struct IngestArguments {
  std::string name;
  std::vector<std::string> sources;
  v1::SourceFormat format = v1::FORMAT_AUTO;
  Options::ArrayLayout layout = Options::LAYOUT_UNSPECIFIED;
  std::string data_array;
  std::string target_array;
  uint64_t window = 0;
  uint64_t stride = 0;
  std::vector<std::string> channels;
  Options::Missing missing = Options::MISSING_UNSPECIFIED;
  Options::Unequal unequal = Options::UNEQUAL_UNSPECIFIED;
  Options::Target target = Options::TARGET_UNSPECIFIED;
  std::string time_column;
  std::string label;
  bool label_from_file_name = false;
  std::vector<std::string> exclude;
  std::string working_column;
  double gap_seconds = 0;
};

// The daemon has a working directory of its own.
std::string Absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

v1::IngestRequest ToRequest(const IngestArguments& arguments) {
  v1::IngestRequest request;
  request.set_name(arguments.name);
  for (const std::string& source : arguments.sources) request.add_source(Absolute(source));
  Options& options = *request.mutable_options();
  options.set_format(arguments.format);
  options.set_layout(arguments.layout);
  options.set_data_array(arguments.data_array);
  const bool target_is_file = absl::EndsWith(arguments.target_array, ".npy");
  options.set_target_array(target_is_file ? Absolute(arguments.target_array) : arguments.target_array);
  options.set_window(arguments.window);
  options.set_stride(arguments.stride);
  options.mutable_channels()->Assign(arguments.channels.begin(), arguments.channels.end());
  options.set_missing(arguments.missing);
  options.set_unequal(arguments.unequal);
  options.set_target(arguments.target);
  Options::Csv csv;
  csv.set_time_column(arguments.time_column);
  csv.set_label(arguments.label);
  csv.set_label_from_file_name(arguments.label_from_file_name);
  csv.mutable_exclude()->Assign(arguments.exclude.begin(), arguments.exclude.end());
  csv.set_working_column(arguments.working_column);
  csv.set_gap_seconds(arguments.gap_seconds);
  if (csv.ByteSizeLong() > 0) *options.mutable_csv() = csv;
  return request;
}

std::string Classes(const v1::StoreManifest& manifest) {
  constexpr int kShown = 12;
  std::vector<std::string> shown;
  for (const v1::ClassInfo& info : manifest.classes()) {
    if (static_cast<int>(shown.size()) == kShown) break;
    shown.push_back(absl::StrCat(info.label(), " (", FormatCount(info.samples()), ")"));
  }
  return absl::StrCat(manifest.classes_size(), ": ", absl::StrJoin(shown, ", "),
                      manifest.classes_size() > kShown ? ", …" : "");
}

std::string Lengths(const v1::TimeSeriesInfo& series) {
  const std::string lengths = series.length_min() == series.length_max()
                                  ? FormatCount(series.length_min())
                                  : absl::StrCat(FormatCount(series.length_min()), " to ", series.length_max());
  return series.window() == 0 ? lengths : absl::StrCat(lengths, ", a window every ", series.stride());
}

void PrintSummary(const Output& output, const v1::IngestEvent::Done& done) {
  const v1::DatasetInfo& dataset = done.dataset();
  const v1::StoreManifest& manifest = dataset.manifest();
  const v1::TimeSeriesInfo& series = manifest.time_series();
  std::vector<std::pair<std::string, std::string>> fields = {
      {"data set", dataset.name()},
      {"samples", absl::StrCat(FormatCount(dataset.samples()), " from ", FormatCount(series.series()), " series")},
      {"channels", absl::StrCat(series.channels_size())},
      {"length", Lengths(series)}};
  if (manifest.classes_size() > 0) fields.emplace_back("classes", Classes(manifest));
  if (manifest.target() == Options::TARGET_VALUE) {
    fields.emplace_back("targets", absl::StrCat(manifest.target_width(), " a sample"));
  }
  for (const v1::Skipped& skipped : manifest.skipped()) {
    fields.emplace_back(
        "skipped", absl::StrCat(FormatCount(skipped.count()), ": ", skipped.reason(), ", first ", skipped.first()));
  }
  fields.emplace_back("size", FormatSize(dataset.bytes()));
  fields.emplace_back("time",
                      absl::StrCat(FormatSeconds(done.seconds()), done.unchanged() ? ", was there already" : ""));
  PrintFields(output.out, fields);
  output.out << std::flush;
}

ExitCode RunIngest(const Context& context, const IngestArguments& arguments) {
  const std::string what = absl::StrCat("ingest ", arguments.name);
  const absl::StatusOr<Client> client = context.Connect();
  if (!client.ok()) return Fail(context.output, what, client.status());
  absl::StatusOr<v1::IngestEvent::Done> done;
  {
    Progress progress(context.output, what);
    done = client->Ingest(ToRequest(arguments), [&progress](const v1::IngestEvent::Progress& event) {
      const std::string more = absl::StrCat(event.phase(), "  ", FormatCount(event.samples()), " samples");
      progress.Update(event.bytes_done(), event.bytes_total(), more, absl::Now());
    });
  }
  if (!done.ok()) return Fail(context.output, what, done.status());
  if (context.output.json) {
    PrintJson(context.output, *done);
  } else if (!context.output.quiet) {
    PrintSummary(context.output, *done);
  }
  return kDone;
}

void AddSeriesOptions(CLI::App* command, IngestArguments* arguments) {
  command->add_option("--layout", arguments->layout, "Axes of arrays: nct (samples, channels, time; default) or ntc")
      ->transform(CLI::CheckedTransformer(kLayouts, CLI::ignore_case));
  command->add_option("--data-array", arguments->data_array, "Key of the data in an .npz of several arrays");
  command->add_option("--target-array", arguments->target_array,
                      "Key of the targets in an .npz, or the path of an .npy with them");
  command->add_option("--window", arguments->window, "Points of a sample (default: each series is one)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--stride", arguments->stride, "Points from window to window (default: the window)")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--channels", arguments->channels, "Names or numbers of the channels to keep: a,b")
      ->delimiter(',');
  command->add_option("--missing", arguments->missing, "Values that are not there: error (default), linear or zero")
      ->transform(CLI::CheckedTransformer(kMissing, CLI::ignore_case));
  command->add_option("--unequal", arguments->unequal, "Lengths that differ: error (default), paa, crop or pad")
      ->transform(CLI::CheckedTransformer(kUnequal, CLI::ignore_case));
  command->add_option("--target", arguments->target, "none, class or value (default: as the source says)")
      ->transform(CLI::CheckedTransformer(kTargets, CLI::ignore_case));
}

void AddCsvOptions(CLI::App* command, IngestArguments* arguments) {
  command->add_option("--time-column", arguments->time_column,
                      "Column of the time (default: the first of date, datetime, time, timestamp, ts)");
  CLI::Option* label = command->add_option("--label", arguments->label, "Column whose value labels the row");
  command->add_flag("--label-from-file-name", arguments->label_from_file_name, "One class a file, named like it")
      ->excludes(label);
  command->add_option("--exclude", arguments->exclude, "Columns that are not channels: a,b")->delimiter(',');
  command->add_option("--working-column", arguments->working_column, "Keep only rows where this column is 1");
  command->add_option("--gap", arguments->gap_seconds, "Seconds; a longer step in time begins a new segment")
      ->check(CLI::NonNegativeNumber);
}

}  // namespace

void AddIngest(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "ingest", "Makes a data set of files, once; the same again is immediate",
                                 "stokerctl ingest walks --source walks.csv --window 96 --stride 24");
  auto arguments = std::make_shared<IngestArguments>();
  command->add_option("name", arguments->name, "What to call it: letters, digits, '.', '_', '-'")->required();
  command->add_option("--source", arguments->sources, "File or folder; may be given several times")->required();
  command->add_option("--format", arguments->format, "auto (default), ts, ucr, npy or csv")
      ->transform(CLI::CheckedTransformer(kFormats, CLI::ignore_case));
  AddSeriesOptions(command, arguments.get());
  AddCsvOptions(command, arguments.get());
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunIngest(context, *arguments); }; });
}

}  // namespace stoker::ctl
