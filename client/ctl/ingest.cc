// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/ctl/command.h"
#include "shared/base/option_checks.h"
#include "shared/base/size.h"

namespace stoker::ctl {
namespace {

using Options = v1::IngestOptions;

using Crystal = v1::IngestOptions::Crystal;

const std::map<std::string, v1::SourceFormat> kFormats = {
    {"auto", v1::FORMAT_AUTO},  {"ts", v1::TS},         {"ucr", v1::UCR},         {"npy", v1::NPY},
    {"csv", v1::CSV},           {"jarvis", v1::JARVIS}, {"id-prop", v1::ID_PROP}, {"extxyz", v1::EXTXYZ},
    {"matbench", v1::MATBENCH}, {"poscar", v1::POSCAR}, {"cif", v1::CIF}};
const std::map<std::string, Options::ArrayLayout> kLayouts = {{"nct", Options::NCT}, {"ntc", Options::NTC}};
const std::map<std::string, Options::Missing> kMissing = {
    {"error", Options::MISSING_ERROR}, {"linear", Options::MISSING_LINEAR}, {"zero", Options::MISSING_ZERO}};
const std::map<std::string, Options::Unequal> kUnequal = {{"error", Options::UNEQUAL_ERROR},
                                                          {"paa", Options::UNEQUAL_PAA},
                                                          {"crop", Options::UNEQUAL_CROP},
                                                          {"pad", Options::UNEQUAL_PAD}};
const std::map<std::string, Options::Target> kTargets = {
    {"none", Options::TARGET_NONE}, {"class", Options::TARGET_CLASS}, {"value", Options::TARGET_VALUE}};

const std::map<std::string, Crystal::Graph> kGraphs = {
    {"knn", Crystal::KNN}, {"alignn", Crystal::ALIGNN}, {"radius", Crystal::RADIUS}, {"cgcnn", Crystal::CGCNN}};
const std::map<std::string, Crystal::OnError> kOnError = {{"fail", Crystal::ON_ERROR_FAIL},
                                                          {"skip", Crystal::ON_ERROR_SKIP}};

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
  std::vector<std::string> targets;
  std::string time_column;
  std::string label;
  bool label_from_file_name = false;
  std::vector<std::string> exclude;
  std::string working_column;
  double gap_seconds = 0;
  Crystal::Graph graph = Crystal::GRAPH_UNSPECIFIED;
  uint32_t k = 0;
  std::optional<double> tolerance;
  double cutoff = 0;
  uint32_t max_neighbors = 0;
  double triplet_cutoff = 0;
  bool directed = false;
  bool primitive = false;
  std::string id_key;
  std::vector<std::string> sidecars;  // NAME=FILE
  std::string atom_features;
  Crystal::OnError on_error = Crystal::ON_ERROR_UNSPECIFIED;
};

// The daemon has a working directory of its own.
std::string Absolute(const std::string& path) {
  std::error_code error;
  const std::filesystem::path absolute = std::filesystem::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

Crystal ToCrystal(const IngestArguments& arguments) {
  Crystal crystal;
  crystal.set_graph(arguments.graph);
  crystal.set_k(arguments.k);
  if (arguments.tolerance.has_value()) crystal.set_tolerance(*arguments.tolerance);
  crystal.set_cutoff(arguments.cutoff);
  crystal.set_max_neighbors(arguments.max_neighbors);
  crystal.set_triplet_cutoff(arguments.triplet_cutoff);
  crystal.set_directed(arguments.directed);
  crystal.set_primitive(arguments.primitive);
  crystal.set_id_key(arguments.id_key);
  crystal.mutable_target()->Assign(arguments.targets.begin(), arguments.targets.end());
  for (const std::string& named : arguments.sidecars) {
    const size_t equals = named.find('=');  // checked as it was parsed
    v1::Sidecar* sidecar = crystal.add_sidecar();
    sidecar->set_name(named.substr(0, equals));
    sidecar->set_path(Absolute(named.substr(equals + 1)));
  }
  if (!arguments.atom_features.empty()) crystal.set_atom_features(Absolute(arguments.atom_features));
  crystal.set_on_error(arguments.on_error);
  return crystal;
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
  // The kind of a time series' target, or keys of crystals: the daemon knows which they are.
  const auto kind = arguments.targets.size() == 1 ? kTargets.find(arguments.targets[0]) : kTargets.end();
  if (kind != kTargets.end()) options.set_target(kind->second);
  Options::Csv csv;
  csv.set_time_column(arguments.time_column);
  csv.set_label(arguments.label);
  csv.set_label_from_file_name(arguments.label_from_file_name);
  csv.mutable_exclude()->Assign(arguments.exclude.begin(), arguments.exclude.end());
  csv.set_working_column(arguments.working_column);
  csv.set_gap_seconds(arguments.gap_seconds);
  if (csv.ByteSizeLong() > 0) *options.mutable_csv() = csv;
  const Crystal crystal = ToCrystal(arguments);
  if (crystal.ByteSizeLong() > 0) *options.mutable_crystal() = crystal;
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

using SummaryFields = std::vector<std::pair<std::string, std::string>>;

void SummarizeSeries(const v1::StoreManifest& manifest, SummaryFields* fields) {
  const v1::TimeSeriesInfo& series = manifest.time_series();
  fields->emplace_back(
      "samples", absl::StrCat(FormatCount(manifest.samples()), " from ", FormatCount(series.series()), " series"));
  fields->emplace_back("channels", absl::StrCat(series.channels_size()));
  fields->emplace_back("length", Lengths(series));
  if (manifest.classes_size() > 0) fields->emplace_back("classes", Classes(manifest));
  if (manifest.target() == Options::TARGET_VALUE) {
    fields->emplace_back("targets", absl::StrCat(manifest.target_width(), " a sample"));
  }
}

std::string Each(uint64_t total, const v1::Distribution& each) {
  return absl::StrFormat("%s, a structure: mean %.1f, median %g, max %g", FormatCount(total), each.mean(),
                         each.median(), each.max());
}

void SummarizeCrystals(const v1::StoreManifest& manifest, SummaryFields* fields) {
  constexpr int kShown = 6;
  const v1::CrystalInfo& info = manifest.crystals();
  fields->emplace_back("samples", FormatCount(manifest.samples()));
  fields->emplace_back("graph", absl::AsciiStrToLower(Crystal::Graph_Name(info.graph().graph())));
  fields->emplace_back("atoms", Each(info.atoms(), info.atoms_each()));
  fields->emplace_back("edges", Each(info.edges(), info.edges_each()));
  if (info.triplets_size() > 0) fields->emplace_back("triplets", Each(info.triplets(0), info.triplets_each()));
  if (info.targets_size() > 0) {
    const std::vector<std::string> shown(info.targets().begin(),
                                         info.targets().begin() + std::min(info.targets_size(), kShown));
    fields->emplace_back("targets", absl::StrCat(info.targets_size(), ": ", absl::StrJoin(shown, ", "),
                                                 info.targets_size() > kShown ? ", …" : ""));
  }
  for (const v1::CrystalInfo::SidecarInfo& sidecar : info.sidecars()) {
    const std::string kind = sidecar.dtype() == "TEXT"
                                 ? "text"
                                 : absl::StrCat(sidecar.dtype(), " [", absl::StrJoin(sidecar.shape(), ", "), "]");
    fields->emplace_back("sidecar", absl::StrCat(sidecar.name(), ": ", kind));
  }
  if (info.repeated_ids() > 0) {
    fields->emplace_back("repeated ids", absl::StrCat(FormatCount(info.repeated_ids()), " samples"));
  }
  if (info.close_atoms() > 0) {
    fields->emplace_back("close atoms",
                         absl::StrCat("nearer than 0.5 Å in ", FormatCount(info.close_atoms()), " samples"));
  }
}

void PrintSummary(const Output& output, const v1::IngestEvent::Done& done) {
  const v1::DatasetInfo& dataset = done.dataset();
  const v1::StoreManifest& manifest = dataset.manifest();
  SummaryFields fields = {{"data set", dataset.name()}};
  if (manifest.kind() == v1::CRYSTALS) {
    SummarizeCrystals(manifest, &fields);
  } else {
    SummarizeSeries(manifest, &fields);
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
      ->transform(OneOf(kLayouts));
  command->add_option("--data-array", arguments->data_array, "Key of the data in an .npz of several arrays");
  command->add_option("--target-array", arguments->target_array,
                      "Key of the targets in an .npz, or the path of an .npy with them");
  command->add_option("--window", arguments->window, "Points of a sample (default: each series is one)")
      ->check(AtLeastZero());
  command->add_option("--stride", arguments->stride, "Points from window to window (default: the window)")
      ->check(AtLeastZero());
  command->add_option("--channels", arguments->channels, "Names or numbers of the channels to keep: a,b")
      ->delimiter(',');
  command->add_option("--missing", arguments->missing, "Values that are not there: error (default), linear or zero")
      ->transform(OneOf(kMissing));
  command->add_option("--unequal", arguments->unequal, "Lengths that differ: error (default), paa, crop or pad")
      ->transform(OneOf(kUnequal));
}

void AddCrystalOptions(CLI::App* command, IngestArguments* arguments) {
  command->add_option("--graph", arguments->graph, "Neighbours: knn (default), alignn, radius or cgcnn")
      ->transform(OneOf(kGraphs));
  command->add_option("--k", arguments->k, "How many nearest neighbours (default 12)")->check(AboveZero());
  command->add_option("--tolerance", arguments->tolerance, "Å; neighbours so little farther are kept too (1e-4)")
      ->check(AtLeastZero());
  command->add_option("--cutoff", arguments->cutoff, "Å; how far neighbours are looked for (default 8)")
      ->check(AboveZero());
  command->add_option("--max-neighbors", arguments->max_neighbors, "Of a radius graph, the nearest (default: all)")
      ->check(AboveZero());
  command->add_option("--triplet-cutoff", arguments->triplet_cutoff, "Å; longer edges have no triplets (default: all)")
      ->check(AboveZero());
  command->add_flag("--directed", arguments->directed, "Of a knn graph, only the edges that their source chose");
  command->add_flag("--primitive", arguments->primitive, "Reduce structures to their primitive cell");
  command->add_option("--id-key", arguments->id_key,
                      "Key of the id (default: the first of jid, id, material_id, mp_id)");
  command
      ->add_option("--sidecar", arguments->sidecars,
                   "NAME=FILE: texts by id (.csv, .jsonl), arrays by order (.npy) or id (.npz); several times")
      ->check([](const std::string& named) {
        const size_t equals = named.find('=');
        return equals == 0 || equals == std::string::npos || equals + 1 == named.size() ? "not NAME=FILE: " + named
                                                                                        : "";
      });
  command->add_option("--atom-features", arguments->atom_features, "JSON table of node features by atomic number");
  command->add_option("--on-error", arguments->on_error, "A bad structure ends the ingest: fail (default), or: skip")
      ->transform(OneOf(kOnError));
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
      ->check(AtLeastZero());
}

}  // namespace

void AddIngest(CLI::App& app, Context& context) {
  CLI::App* command = AddCommand(app, "ingest", "Makes a data set of files, once; the same again is immediate",
                                 "stokerctl ingest walks --source walks.csv --window 96 --stride 24");
  auto arguments = std::make_shared<IngestArguments>();
  command->add_option("name", arguments->name, "What to call it: letters, digits, '.', '_', '-'")->required();
  command->add_option("--source", arguments->sources, "File or folder; may be given several times")->required();
  command
      ->add_option("--format", arguments->format,
                   "auto (default), ts, ucr, npy, csv, jarvis, id-prop, extxyz, matbench, poscar or cif")
      ->transform(OneOf(kFormats));
  command->add_option("--target", arguments->targets,
                      "Time series: none, class or value. Crystals: key or column; several times, or none");
  AddSeriesOptions(command, arguments.get());
  AddCrystalOptions(command, arguments.get());
  AddCsvOptions(command, arguments.get());
  command->callback(
      [&context, arguments] { context.action = [&context, arguments] { return RunIngest(context, *arguments); }; });
}

}  // namespace stoker::ctl
