//! The table: ours, the peer's, the ratio, and whether a promise is kept.

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

pub(crate) struct Row {
    what: String,
    unit: &'static str,
    ours: f64,
    peer: Option<(&'static str, f64)>,
    promise: Option<(bool, String)>,
}

impl Table {
    pub fn add(&mut self, what: &str, unit: &'static str, ours: f64) -> &mut Row {
        self.rows.push(Row {
            what: what.to_owned(),
            unit,
            ours,
            peer: None,
            promise: None,
        });
        let last = self.rows.len() - 1;
        &mut self.rows[last]
    }

    /// What is worth knowing beside the numbers.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// A peer that cannot run here is named, and the others go on.
    pub fn or_note<T>(&mut self, name: &str, result: crate::Anyhow<T>) -> Option<T> {
        result
            .map_err(|error| self.notes.push(format!("not run: {name}: {error}")))
            .ok()
    }

    pub fn missed(&self) -> bool {
        self.rows
            .iter()
            .any(|row| row.promise.as_ref().is_some_and(|(kept, _)| !kept))
    }

    pub fn print(&self) {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split(": ").nth(1));
        let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!(
            "{}, {cores} cores, load {}",
            model.unwrap_or("?"),
            load.split(' ').next().unwrap_or("?")
        );
        println!();
        let width = self
            .rows
            .iter()
            .map(|row| row.what.len())
            .max()
            .unwrap_or(0);
        println!(
            "{:width$}  {:>12}  {:>12}       {:20} {:>9}  promise",
            "", "BlockHost", "peer", "", "ratio"
        );
        let mut last = "";
        for row in &self.rows {
            let what = if row.what == last { "" } else { &row.what };
            last = &row.what;
            let (value, name) = row
                .peer
                .map_or(("-".to_owned(), ""), |(name, value)| (number(value), name));
            let ratio = row
                .ratio()
                .map_or(String::new(), |ratio| format!("{ratio:.2}"));
            let promise = row.promise.as_ref().map_or(String::new(), |(kept, words)| {
                format!("{}  {words}", if *kept { "KEPT  " } else { "MISSED" })
            });
            let line = format!(
                "{what:width$}  {:>12}  {value:>12}  {:<4} {name:20} {ratio:>9}  {promise}",
                number(row.ours),
                row.unit
            );
            println!("{}", line.trim_end());
        }
        for note in &self.notes {
            println!("{note}");
        }
    }
}

fn number(value: f64) -> String {
    if value.abs() >= 1000.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.2}")
    }
}

impl Row {
    pub fn beside(&mut self, name: &'static str, value: f64) -> &mut Self {
        self.peer = Some((name, value));
        self
    }

    pub fn ratio_at_most(&mut self, limit: f64) {
        let kept = self.ratio().is_some_and(|ratio| ratio <= limit);
        self.promise = Some((kept, format!("at most {limit} x the peer's")));
    }

    pub fn ratio_at_least(&mut self, limit: f64) {
        let kept = self.ratio().is_some_and(|ratio| ratio >= limit);
        self.promise = Some((kept, format!("at least {limit} x the peer's")));
    }

    pub fn at_most(&mut self, limit: f64) {
        self.promise = Some((self.ours <= limit, format!("at most {limit} {}", self.unit)));
    }

    pub fn at_least(&mut self, limit: f64) {
        self.promise = Some((
            self.ours >= limit,
            format!("at least {limit} {}", self.unit),
        ));
    }

    fn ratio(&self) -> Option<f64> {
        self.peer.map(|(_, value)| self.ours / value)
    }
}
