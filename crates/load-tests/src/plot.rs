//! How cost grows with one thing: a table for the terminal, and a picture.

use std::fmt::Write as _;

/// Points from left to right.
#[derive(Debug, Clone)]
pub struct Curve {
    /// Of the picture's file.
    pub name: &'static str,
    /// What grows.
    pub of: &'static str,
    /// What it costs, with its unit; counted from 0.
    pub cost: &'static str,
    /// What grows, what it costs.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
/// Around the drawing: left, right, top, bottom.
const MARGINS: (f64, f64, f64, f64) = (70.0, 30.0, 40.0, 50.0);

impl Curve {
    /// For people at a terminal.
    pub fn table(&self) -> String {
        let mut text = format!("{:>24}  {}\n", self.of, self.cost);
        for (of, cost) in &self.points {
            let _infallible = writeln!(text, "{of:>24}  {cost:.1}");
        }
        text
    }

    /// As SVG; the scale of what grows is logarithmic, since it is doubled and not added to.
    pub fn svg(&self) -> String {
        let (left, right, top, bottom) = MARGINS;
        let logs = self.points.iter().map(|(of, _)| of.max(f64::MIN_POSITIVE).ln());
        let (least, greatest) = logs.fold((f64::MAX, f64::MIN), |(l, g), x| (l.min(x), g.max(x)));
        let most = self.points.iter().fold(0.0_f64, |most, (_, cost)| most.max(*cost)).max(1e-9) * 1.1;
        let x = |of: f64| {
            let share = if greatest > least { (of.ln() - least) / (greatest - least) } else { 0.5 };
            left + share * (WIDTH - left - right)
        };
        let y = |cost: f64| HEIGHT - bottom - cost / most * (HEIGHT - top - bottom);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
             font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{left}\" y=\"24\" \
             font-size=\"14\">{} by {}</text>\n",
            self.cost, self.of
        );
        let _infallible = writeln!(
            svg,
            "<path d=\"M{left} {top}V{0}H{1}\" fill=\"none\" stroke=\"#888\"/>",
            HEIGHT - bottom,
            WIDTH - right
        );
        let mut line = String::new();
        for (n, (of, cost)) in self.points.iter().enumerate() {
            let (x, y) = (x(*of), y(*cost));
            let _infallible = write!(line, "{}{x:.1} {y:.1}", if n == 0 { "M" } else { "L" });
            let _infallible = writeln!(
                svg,
                "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"#1f5fa8\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{cost:.1}</text><text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{of}</text>",
                y - 8.0,
                HEIGHT - bottom + 18.0
            );
        }
        let _infallible = writeln!(svg, "<path d=\"{line}\" fill=\"none\" stroke=\"#1f5fa8\" stroke-width=\"2\"/>");
        let _infallible = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n</svg>",
            WIDTH - right,
            HEIGHT - 12.0,
            self.of
        );
        svg
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_where_they_should() {
        let curve =
            Curve { name: "c", of: "users", cost: "µs", points: vec![(1.0, 10.0), (10.0, 20.0), (100.0, 20.0)] };
        let svg = curve.svg();
        let xs: Vec<f64> =
            svg.split("cx=\"").skip(1).map(|rest| rest.split('"').next().unwrap().parse().unwrap()).collect();
        assert_eq!(xs.len(), 3);
        assert!((xs[0] - 70.0).abs() < 0.1 && (xs[2] - 610.0).abs() < 0.1 && (xs[1] - 340.0).abs() < 0.1, "{xs:?}");
        assert!(curve.table().lines().count() == 4);
    }
}
