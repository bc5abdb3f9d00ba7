"""What the example documents say: the words and figures of a company that does not exist."""

# ruff: noqa: RUF001 -- the en dashes are meant

COMPANY = "Harrowsund Ferries & Cargo Bikes"
YEARS = ("2020", "2021", "2022", "2023", "2024")
NOTHING = "–"  # for a figure that does not exist
Rows = tuple[tuple[str, tuple[int, ...]], ...]

LETTER = (
    "Dear owners, passengers and neighbours,",
    "When our cooperative bought its first second-hand ferry in 1987, the whole timetable fitted "
    "on a postcard. We now connect four harbours, and every parcel that arrives by sea travels its "
    "last kilometres on a cargo bike. This report tells what we did in 2024, and what it cost.",
    "The moment I will remember is a quiet one. At 05:40 on 3 May the <i>Kittiwake</i> left the "
    "quay on batteries alone, and the gulls on the breakwater did not bother to move. In the same "
    "month 612 members voted, by a clear majority, to keep the fare for under-sixteens at one "
    "euro until 2027.",
    "Not everything went well. The new booking site was two months late and, on its first "
    "Saturday, sold the same cabins three times. Nineteen guests slept in the saloon; they were "
    "good about it, and we have paid back more than they asked. Since then a person answers the "
    "telephone again from six in the morning, every day of the week.",
    "Thank you for travelling with us, and for telling us when the coffee is cold.",
)
SIGNED = ("Ingrid Vasshaug", "Managing director, Harrowsund, 18 March 2025")

ARTICLES_LEFT = 3  # so many articles fill the left column
ARTICLES = (
    (
        "A ferry learns to be quiet",
        "The largest project of the year was the conversion of the <i>Kittiwake</i>. She spent "
        "eleven weeks in the Brandvik yard, where two diesel engines from 1998 were lifted out and "
        "an electric drive went in. The yard bill came to 2.6 million euros, of which the regional "
        "climate fund paid forty per cent. The work was finished nine days late, because a crane "
        "inspection had been overlooked.",
        "Her sister ship, the <i>Guillemot</i>, keeps her engines for now. She burns hydrotreated "
        "vegetable oil in winter and will follow into the yard once the quay at Odde has a "
        "stronger power supply. Passengers in the forward saloon notice the difference at once: "
        "one ship hums, the other one growls.",
    ),
    (
        "Twenty-six bikes and one trailer",
        "Our cargo bikes started as an experiment with three riders. The pool has grown to "
        "twenty-six bikes, all with an aluminium box of 340 litres, and one refrigerated trailer "
        "for the fishmongers of Kesby. Riders change batteries at the depots in less than two "
        "minutes. Studded tyres, fitted from the first frost, cut the number of falls from nine "
        "in the previous winter to two.",
        "Bakeries are our most loyal customers. Seven of them have given up their own vans, and "
        "the oldest, on Lantern Row, has named a raisin bun after our rider Pilar Stene. The "
        "hospital pharmacy joined in October: insulin now crosses the town in a cooled box within "
        "half an hour of the ferry tying up.",
    ),
    (
        "One ticket for sea and street",
        "Since February a day pass at 14 euros covers every crossing by daylight and the town "
        "buses of both islands. Conductors scan it from paper or from a telephone. Pensioners "
        "asked us to keep the cardboard punch cards, so we ordered another ten thousand of them, "
        "in the old yellow.",
    ),
    (
        "People on board",
        "At the end of the year 71 people worked for us, 29 of them women. Four apprentices began "
        "their training as deckhands, and the first two bike mechanics trained in our own workshop "
        "passed their examination in June. Sick leave fell to 4.1%.",
        "Every crew member now practises a man-overboard rescue every six weeks instead of every "
        "quarter. The fastest drill, led by boatswain Tomas Reyle, took three minutes and fifty "
        "seconds from the alarm to the blanket.",
    ),
    (
        "Eiders on the breakwater",
        "From April to July the ferries pass the Kesby skerries at no more than six knots. Wardens "
        "counted 143 eider nests there, the highest number since counting began in 2009. The "
        "slower passage adds four minutes to each crossing, which the spring timetable allows for. "
        "A camera on the beacon shows the colony live.",
    ),
    (
        "A classroom on the upper deck",
        "Thirty-one school classes came aboard to take water samples, tie bowlines and steer for "
        "a minute under the eyes of the mate. In bad weather the class moves down to the mess, "
        "where the cook explains why soup is served in deep cups. The best question came "
        "from a girl of seven: who taught the first captain? The teaching boxes, with nets, lenses "
        "and a chart of the sound, can be borrowed free of charge from the library in Kesby.",
    ),
    (
        "What comes next",
        "In 2025 we plan a covered bike park with 180 stands at the Harrowsund terminal, ticket "
        "gates that read any bank card, and a trial of parcel lockers on the pier at Odde. We "
        "shall not order a third ship: the board prefers to repay the loan for the terminal roof, "
        "which runs until 2031.",
    ),
)

PASSENGERS: Rows = (
    ("Day route, Harrowsund–Kesby", (214_380, 231_905, 268_412, 281_077, 296_540)),
    ("Harbour shuttle, Harrowsund–Odde", (88_214, 97_660, 121_038, 130_452, 127_918)),
    ("Summer route, Kesby–Odde", (0, 12_045, 19_873, 22_316, 25_609)),
    ("Night route, Harrowsund–Lüttholm", (0, 0, 31_290, 38_746, 41_983)),
)
REVENUE: Rows = (
    ("Passenger fares", (2310, 2574, 3322, 3581, 3790)),
    ("Vehicles and sea freight", (1045, 1098, 1260, 1324, 1291)),
    ("Parcel delivery by cargo bike", (118, 196, 287, 365, 448)),
    ("Kiosk and catering", (142, 171, 238, 262, 279)),
    ("Public service contract", (1650, 1650, 1700, 1700, 1750)),
)
COSTS: Rows = (
    ("Wages and training", (2480, 2545, 2810, 3015, 3190)),
    ("Electricity and fuel", (960, 1010, 1385, 1190, 905)),
    ("Maintenance and docking", (910, 865, 940, 1125, 1260)),
    ("Harbour dues and insurance", (415, 430, 455, 470, 486)),
    ("Depreciation and interest", (620, 640, 690, 780, 915)),
)
FIGURE_NOTES = (
    "A passenger is counted once for each crossing; children under four are not counted. A dash "
    "means that the route did not run. The night route opened on 1 April 2022, the summer route "
    "on 12 June 2021 (it runs from June to September).",
    "Money is in thousands of euros, without value added tax. Figures for 2024 were audited by "
    "Pell & Oduya on 27 February 2025.",
)

QUARTERS = ("Jan–Mar", "Apr–Jun", "Jul–Sep", "Oct–Dec")
PARCELS: Rows = (
    ("Harrowsund depot", (8_120, 9_340, 10_210, 12_480)),
    ("Kesby depot", (3_050, 3_610, 4_420, 4_890)),
    ("Odde depot", (1_240, 1_580, 2_260, 1_910)),
)
MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
ON_TIME: Rows = (
    ("2023", (88, 86, 90, 93, 95, 96, 94, 95, 93, 89, 84, 82)),
    ("2024", (91, 90, 92, 95, 97, 97, 96, 96, 95, 92, 79, 90)),
)
PARCELS_CAPTION = (
    "<b>Figure 1.</b> Parcels delivered by cargo bike in 2024, by depot and quarter. Only the Odde "
    "depot was busier in summer than before Christmas: holiday cottages order by post."
)
ON_TIME_CAPTION = (
    "<b>Figure 2.</b> Departures within five minutes of the timetable, in per cent of all "
    "departures. The dip in November 2024 is storm Runa, which closed the Kesby berth for six days."
)

# Each box of the drawing: column, row (1 port, 0 midship, -1 starboard), name, part number.
BOXES = (
    (0, 1, "Motor, port", "K-3021"),
    (0, 0, "Cooling pump", "K-3310"),
    (0, -1, "Motor, starboard", "K-3022"),
    (1, 1, "Inverter, port", "K-2415"),
    (1, 0, "Wheelhouse unit", "K-4010"),
    (1, -1, "Inverter, starb.", "K-2416"),
    (2, 1, "Battery pack A", "K-2210"),
    (2, 0, "DC switchboard", "K-2300"),
    (2, -1, "Battery pack B", "K-2211"),
    (3, 1, "Charging inlet", "K-2101"),
    (3, 0, "Isolator S4", "K-2150"),
    (3, -1, "Standby generator", "K-2600"),
)
PARTS = (
    ("Part number", "Component", "Rating", "Mass", "Inspection"),
    ("K-1105", "Charging tower on the quay", "0.8 MW", "2,750 kg", "yearly"),
    ("K-2101", "Charging inlet, retractable", "1,200 A, IP67", "48 kg", "monthly"),
    ("K-2150", "Isolator S4, lockable", "1,600 A, 1,000 V DC", "31 kg", "every 3 months"),
    ("K-2210, K-2211", "Battery pack, iron phosphate", "620 kWh each", "5,900 kg", "weekly"),
    ("K-2300", "DC switchboard, four feeders", "690 V, 2,000 A", "410 kg", "every 6 months"),
    ("K-2415, K-2416", "Inverter, water-cooled", "450 kW", "215 kg", "every 6 months"),
    ("K-2600", "Standby generator", "180 kW", "1,340 kg", "every 250 hours"),
    ("K-3021, K-3022", "Permanent-magnet motor", "400 kW at 1,100 rpm", "1,080 kg", "yearly"),
    ("K-3310", "Cooling pump, freshwater circuit", "140 l/min, 2.4 bar", "26 kg", "every 3 months"),
    ("K-4010", "Wheelhouse unit with display", "24 V, 60 W", "7 kg", "every voyage"),
)
SAFETY = (
    "<b>Safety note.</b> Before any work on the switchboard K-2300, open isolator S4, lock it with "
    "the red padlock and keep the key on your person. The capacitors of the inverters hold a "
    "dangerous charge: wait twelve minutes, then prove that the terminals are dead with a "
    "two-pole tester rated for 1,000\u00a0V. Never rely on the display in the wheelhouse. Do not "
    "charge when the temperature of a battery cell is below 0 °C or above 45 °C. If the gas alarm "
    "sounds, leave the battery room, close door D7 and release the water mist from the aft deck; "
    "do not use a powder extinguisher. Drawing KW-014, revision F, 22 April 2024. Not to be used "
    "for construction."
)

GERMAN_INTRO = (
    "Unsere Nachtfähre verbindet Lüttholm mit Harrowsund. Auf dieser Seite finden "
    "Sie die Öffnungszeiten unserer Schalter, die Anschriften und das Wichtigste für die Reise "
    "mit Fahrrad, Hund oder Rollstuhl."
)
GERMAN_HOURS = (
    ("Standort und Anschrift", "Mo–Fr", "Samstag", "Sonn- und Feiertag", "Telefon"),
    (
        "<b>Fährterminal Lüttholm</b><br/>Am Alten Zollhaus 4, 00421 Lüttholm",
        "06:30–22:15",
        "08:00–22:15",
        "14:00–22:15",
        "040 66969-110",
    ),
    (
        "<b>Lastenrad-Depot</b><br/>Speicherstieg 17, 00423 Lüttholm",
        "07:00–18:30",
        "09:00–13:00",
        "geschlossen",
        "040 66969-125",
    ),
    (
        "<b>Fundbüro</b><br/>Kirchgang 2, 00421 Lüttholm",
        "10:00–12:00",
        "geschlossen",
        "geschlossen",
        "040 66969-140",
    ),
    (
        "<b>Fracht und Zoll</b><br/>Kaischuppen 9, 00425 Lüttholm",
        "05:45–16:00",
        "06:00–11:30",
        "geschlossen",
        "040 66969-162",
    ),
)
GERMAN_DEPARTURES = (
    ("Abfahrt und Ankunft", "ab Lüttholm", "an Harrowsund", "Verkehrstage"),
    ("Nachtfähre im Winter (Oktober–April)", "22:45", "06:20", "Mo, Mi, Fr"),
    ("Nachtfähre im Sommer (Mai–September)", "23:15", "06:50", "täglich außer So"),
)
GERMAN_FARES = (
    ("Einfache Fahrt, je Person oder Fahrzeug", "Oktober–April", "Mai–September"),
    ("Erwachsene, Ruhesessel", "29,00 €", "36,00 €"),
    ("Erwachsene, Bett in der Viererkabine", "47,50 €", "58,00 €"),
    ("Fahrrad", "5,00 €", "7,50 €"),
    ("Hund, mit Leine und Maulkorb", "8,00 €", "8,00 €"),
    ("Pkw bis 5 Meter Länge", "64,00 €", "82,00 €"),
)
GERMAN_NOTES = (
    "<b>Fahrräder</b> fahren auf dem Autodeck mit. Bitte kommen Sie 40 Minuten vor der Abfahrt "
    "und nehmen Sie das Gepäck ab. Für Tandems und Lastenräder ist eine Anmeldung nötig.",
    "<b>Rollstuhl:</b> Der Aufzug an Bord ist 90 cm breit. Zwei Kabinen sind barrierefrei; "
    "Begleitpersonen reisen kostenlos, wenn der Ausweis das Merkzeichen B trägt.",
    "<b>Fundsachen</b> bewahren wir drei Monate auf. Schlüssel und Ausweise geben wir nach zwei "
    "Wochen an die Gemeinde weiter.",
)

RECEIPT_HEAD = ("SCOOP & ANCHOR", "Kiosk on the pier, Odde", "Tel. 01632 960 417")
RECEIPT_META = ("14 Sep 2024", "16:52", "Till 2", "No. 008831")
RECEIPT_ITEMS = (
    ("2 x Fish soup, small", 13.80),
    ("1 x Rye roll, smoked eel", 7.40),
    ("1 x Rhubarb lemonade", 3.90),
    ("2 x Coffee, filter", 5.60),
    ("1 x Cinnamon knot", 2.75),
    ("1 x Postcard, lighthouse", 1.20),
)
RECEIPT_FOOT = ("Served by Maren", "Bring the cup back:", "0.50 EUR off the next one")

NOTES = """\
Notes from the landing-stage meeting, Tuesday 21 January 2025. Present: Hedda, Tomas, Mr Okafor
from the harbour office, and two residents of Lantern Row. The ticket machine on the Odde pier
stands in the wind and its screen freezes below minus six degrees. We agreed to move it eight
metres to the lee side of the bait shed, next to the noticeboard, before the Easter timetable
starts. Mr Okafor lends us the small crane; Tomas asks the electrician for a price for the cable.

The residents asked for less noise from the gangway, which bangs at low tide. Hedda will order
rubber pads (four pieces, 60 by 20 centimetres) and fit them with the deckhands on the first calm
morning in February. If that does not help we try a slower winch. Next meeting: 4 March, 17:30, in
the net loft. Somebody please bring cake.
"""
