# group_cmb.tsv -> product.json: messages, a chart of counts by place, the counts themselves.
def name: {swi: "SWI", gre: "T2*-weighted GRE", qsm: "QSM"}[.contrast] // .contrast;
def known: select(. != null and . != "" and . != "n/a");
def number: if known then tonumber else null end;

[inputs / "\t"]
| .[0] as $columns
| [.[1:][] | [$columns, .] | transpose | map({(.[0]): .[1]}) | add] as $scans
| [$scans[] | select(.status == "done")] as $done
| {
    brainlife: (
      [{type: "info", msg: "Research use only. The detector was trained on simulated scans; look at every result."}]
      + [$done[] | {
          type: "success",
          msg: "\(name): \(.n_cmb) microbleeds, \(.n_definite) definite and \(.n_possible) possible; \(.n_lobar) lobar, \(.n_deep) deep, \(.n_infratentorial) infratentorial."
        }]
      + [$done[] | (.warnings | known) as $text | {type: "warning", msg: "\(name): \($text)"}]
      + [$scans[] | select(.status != "done") | {type: "error", msg: "\(name): \(.warnings)"}]
      + if $done == [] then [] else [{
          type: "plotly",
          name: "Microbleeds by place",
          data: [$done[] | {
            type: "bar",
            name: name,
            x: ["lobar", "deep", "infratentorial"],
            y: [.n_lobar, .n_deep, .n_infratentorial | number]
          }],
          layout: {barmode: "group", yaxis: {title: "microbleeds", rangemode: "tozero"}}
        }] end
    ),
    microbleeds: [$done[] | {
      contrast, model,
      n_cmb: (.n_cmb | number), n_definite: (.n_definite | number), n_possible: (.n_possible | number),
      n_lobar: (.n_lobar | number), n_deep: (.n_deep | number), n_infratentorial: (.n_infratentorial | number),
      total_volume: (.total_volume | number)
    }]
  }
